"""Fine-tunes a whole backbone with a linear classifier on few labels, or on all of them.

    python eval/semisup.py CKPT --percent 1 --data.name imagenet --data.root DIR --data.list_file 1percent.txt
    python eval/semisup.py CKPT --percent 10 --protocol barlow-twins --rates 0.005 0.5 …
    python eval/semisup.py runs/demo/checkpoint.pth --percent 100 --protocol ours

The labelled images are those of --data.list_file, or a class-balanced part of train that --seed draws. The
recipes are the published ones, on crops and flips, with batch norm in train mode; the last epoch and the best
one on the test part are both printed, each under its name. Where the authors give no rates for a percentage,
--rates must.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.cli import run
from siamtransfer.config import Parser, parse
from siamtransfer.data.subset import Subset, draw_by_class
from siamtransfer.distributed.runtime import Runtime, start_runtime
from siamtransfer.evaluation.finetuning import FINETUNING, Classifier, finetune
from siamtransfer.evaluation.frozen_model import EvaluationConfig, FrozenModel, open_frozen_model
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages, crops_and_flips
from siamtransfer.evaluation.linear.probe import count_like, single_labels
from siamtransfer.features.extract import Features, extract
from siamtransfer.records.predictions import Predictions, publish
from siamtransfer.records.record import record
from siamtransfer.training.epoch_checkpoint import EpochFile
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    rates, epochs = check(config, asked)
    with start_runtime(config.device, config.precision) as runtime:
        subject = open_frozen_model(asked.checkpoint, config, runtime)
        if subject.test is None:
            raise UserError(
                f"{subject.train.name} has no test part to score: name one with --data.test_split, or put "
                "one beside train/"
            )
        protocol = {
            **subject.protocol,
            **vars(FINETUNING[asked.protocol]),
            "protocol": asked.protocol,
            "percent": asked.percent,
            "rates": rates,
            "epochs": epochs,
            "seed": asked.seed,
        }
        metrics, predictions, labelled = score(subject, asked, rates, epochs, runtime)
    if not runtime.is_main:
        return None
    for name, value in metrics.items():
        if "/epoch=" not in name:
            say(f"{name:36} {value:6.2f}" + ("" if name.endswith("/epoch") else " %"))
    document = record("semisup", metrics, {**protocol, "labelled_images": labelled}, **subject.provenance)
    return publish(document, predictions, config.record)


def check(config: EvaluationConfig, asked: Any) -> tuple[tuple[float, float], int]:
    """The rates (backbone, classifier) and epochs; refuses what cannot go together."""
    recipe, percent = FINETUNING[asked.protocol], asked.percent
    if asked.checkpoint in (None, "pixels") or config.train_features or config.test_features:
        raise UserError("eval/semisup.py fine-tunes a backbone: give it a checkpoint and a set of images")
    if not 0 < percent <= 100:
        raise UserError(f"--percent is {percent}, but must be above 0 and at most 100")
    if asked.resume and asked.run is None:
        raise UserError("--resume needs --run, the folder in which the training was begun")
    if asked.rates is None and percent not in recipe.rates:
        raise UserError(
            f"{asked.protocol} has rates for {', '.join(map(str, recipe.rates))} % of the labels, not for "
            f"{percent:g} %: give --rates BACKBONE CLASSIFIER"
        )
    rates = tuple(asked.rates or recipe.rates[percent])
    epochs = asked.epochs or recipe.epochs.get(percent, max(recipe.epochs.values()))
    if min(rates) < 0 or epochs < 1 or (asked.batch_size or 2) < 2:
        raise UserError("--rates must be 0 or more, --epochs at least 1 and --batch-size at least 2")
    return rates, epochs


def score(
    subject: FrozenModel, asked: Any, rates: tuple[float, float], epochs: int, runtime: Runtime
) -> tuple[dict[str, float], Predictions, int]:
    """Fine-tunes and scores after every epoch."""
    recipe, test = FINETUNING[asked.protocol], subject.test
    assert subject.backbone is not None and subject.read is not None and test is not None
    labels = single_labels(subject.train)
    listed = subject.config.data.list_file is not None
    chosen = (
        np.arange(len(labels)) if listed else draw_by_class(labels.numpy(), asked.percent / 100, asked.seed)
    )
    train = Subset(subject.train, chosen)
    empty = Features(torch.zeros(len(test), 0), single_labels(test))
    y, scored = count_like(torch.from_numpy(train.labels), empty)
    batch = asked.batch_size or recipe.batch
    if len(train) < batch:
        raise UserError(
            f"there are {len(train)} labelled images and the batch is {batch}: lower it with --batch-size "
            "(the learning rates go along)"
        )
    images = AugmentedImages(
        train, y, np.arange(len(y)), crops_and_flips(subject.transform), batch, runtime, asked.seed,
        subject.workers, whole=True,
    )  # fmt: skip
    torch.manual_seed(asked.seed)
    model = Classifier(subject.backbone, len(scored.values))
    latest = Tensor()

    def after_epoch(epoch: int) -> dict[str, Any]:
        nonlocal latest
        latest = extract(
            model, test, subject.transform, runtime, batch=subject.config.batch, workers=subject.workers
        )
        scored.score("semisup/last", latest)
        found = {name: scored.metrics[f"semisup/last/{name}"] for name in ("top1", "top5")}
        if runtime.is_main:
            say(f"epoch {epoch + 1}: top-1 {found['top1']:.2f} %, top-5 {found['top5']:.2f} %")
        return found

    file = None
    if asked.run:
        identity = {
            "protocol": asked.protocol,
            "rates": str(rates),
            "epochs": str(epochs),
            "batch": str(batch),
        }
        identity |= {"weights": subject.read.digest, "images": train.fingerprint, "seed": str(asked.seed)}
        file = EpochFile(Path(asked.run) / "semisup.pth", identity)
    notes = finetune(
        model, images, recipe, rates, epochs, runtime, after_epoch=after_epoch, file=file, resume=asked.resume
    )
    if not len(latest):  # resumed after its last epoch
        after_epoch(epochs - 1)
    predicted = scored.score("semisup/last", latest)
    best = max(range(len(notes)), key=lambda epoch: notes[epoch]["top1"])
    scored.metrics |= {f"semisup/best_on_test/{name}": value for name, value in notes[best].items()}
    scored.metrics["semisup/best_on_test/epoch"] = best + 1
    scored.metrics |= {f"semisup/epoch={n}/top1": note["top1"] for n, note in enumerate(notes, 1)}
    return scored.metrics, Predictions(scored.given(), {"semisup/last": predicted}), len(train)


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint", nargs="?", default=None, help="checkpoint of any known format, or random:NAME"
    )
    parser.add_argument("--percent", type=float, default=1.0, help="of the labels; 100 is full fine-tuning")
    parser.add_argument("--protocol", choices=list(FINETUNING), default="swav", help="whose recipe")
    parser.add_argument(
        "--rates", type=float, nargs=2, metavar=("BACKBONE", "CLASSIFIER"), default=None,
        help="other rates for a batch of 256",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=None, help="another number of epochs")
    parser.add_argument("--batch_size", type=int, default=None, help="another number of images an update")
    parser.add_argument("--run", metavar="DIR", default=None, help="keep the state after every epoch there")
    parser.add_argument("--resume", action="store_true", help="go on with the training that --run keeps")
    parser.add_argument("--seed", type=int, default=0, help="decides the labelled part, weights and crops")


if __name__ == "__main__":
    run(main)
