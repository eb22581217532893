"""Scores a backbone by a linear classifier on its frozen features, by a protocol with a name.

    python eval/linear.py runs/demo/checkpoint.pth                                   logistic regression
    python eval/linear.py runs/demo/checkpoint.pth --protocol sweep --augment true   many heads in one pass
    python eval/linear.py checkpoint_0099.pth.tar --protocol simsiam --data.name imagenet --data.root DIR
    torchrun --nproc-per-node 8 eval/linear.py CKPT --protocol moco --data.name imagenet --data.root DIR
    python eval/linear.py --train-features train.npz --test-features test.npz

logistic: L-BFGS at 45 strengths C, the best on a held-out tenth of train, refitted on all of train (for
images with several labels a binary regression a class, and mAP).
sweep: heads of every rate, update rule and selection of layers trained at once, the best on a held-out tenth
of train. Both score the test part once. simsiam, simsiam-paper, moco, moco-v3, swav, barlow-twins, vicreg and
dino are the recipes that their authors published, on crops and flips; the last epoch and the best one on the
test part are both printed, each under its name. Where the set has no test part, a fifth of every class is set
aside as one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import Tensor

from siamtransfer.backbones.feature_layers import OUTPUT, Layers
from siamtransfer.cli import run
from siamtransfer.config import Parser, parse
from siamtransfer.data.subset import Subset
from siamtransfer.data.voc import ignored_of
from siamtransfer.distributed.runtime import Runtime, start_runtime
from siamtransfer.evaluation.frozen_model import (
    EvaluationConfig,
    FrozenModel,
    labelled_features,
    open_frozen_model,
)
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages, crops_and_flips
from siamtransfer.evaluation.linear.classifier_bank import Rule
from siamtransfer.evaluation.linear.logistic import split_by_class
from siamtransfer.evaluation.linear.probe import (
    HELD_OUT,
    TEST_SHARE,
    Outcome,
    SweepData,
    TestSplit,
    count_like,
    logistic,
    logistic_of_labels,
    published,
    set_aside,
    single_labels,
    sweep,
    sweep_epochs,
)
from siamtransfer.evaluation.linear.protocols import PUBLISHED, published_layers
from siamtransfer.evaluation.linear.train import AugmentedFeatures, KeptFeatures, Select
from siamtransfer.records.predictions import publish
from siamtransfer.records.record import record
from siamtransfer.training.epoch_checkpoint import EpochFile
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

STRENGTHS = [float(f"{10**x:.6g}") for x in np.linspace(-6, 5, 45)]
RATES = [float(f"{10**x:.3g}") for x in np.linspace(-4, 2, 13)]
Findings = tuple[Outcome, dict[str, Any], dict[str, Any]]  # with what moved the numbers, and what they are of


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    check(config, asked)
    with start_runtime(config.device, config.precision) as runtime:
        on_features = asked.protocol == "logistic" or asked.checkpoint in (None, "pixels")
        way = from_features if on_features else from_images
        outcome, protocol, provenance = way(config, asked, runtime)
    if not runtime.is_main:
        return None
    for name, value in outcome.metrics.items():
        if "/epoch=" not in name:
            say(f"{name:32} {value:6.2f}" + ("" if name.endswith("/epoch") else " %"))
    document = record(
        "linear", outcome.metrics, {**protocol, "protocol": asked.protocol, **outcome.protocol}, **provenance
    )
    return publish(document, outcome.predictions, config.record)


def check(config: EvaluationConfig, asked: Any) -> None:
    """Refuses what cannot go together, before any work."""
    if min(asked.strengths) <= 0 or min(asked.rates) <= 0:
        raise UserError("--strengths and --rates must be above 0")
    for key, value in changes(asked).items():
        if value < (1 if key in ("epochs", "batch") else 0) or not np.isfinite(value):
            raise UserError(f"{key.replace('_', ' ')} {value} means nothing: give a number above 0")
    trains = asked.protocol in PUBLISHED or asked.augment
    if asked.augment and asked.protocol != "sweep":
        raise UserError("--augment goes with --protocol sweep; the published protocols always augment")
    if trains and (config.train_features or asked.checkpoint == "pixels"):
        raise UserError(
            f"--protocol {asked.protocol} trains on augmented images through a backbone: give a checkpoint, "
            "or take --protocol logistic, or sweep without --augment"
        )
    if asked.selections and (asked.protocol != "sweep" or config.train_features):
        raise UserError("--selections goes with --protocol sweep on images; take --layers for the others")
    if asked.resume and asked.run is None:
        raise UserError("--resume needs --run, the folder in which the probe was begun")
    if asked.protocol == "logistic" and (asked.run or changes(asked)):
        raise UserError("--protocol logistic has no epochs, batch, rate or weight decay, and needs no --run")
    if asked.protocol == "sweep" and asked.rate:
        raise UserError("--rate is one number for a published protocol; a sweep takes several --rates")


def changes(asked: Any) -> dict[str, Any]:
    """What the command line asks to be otherwise than the protocol has it."""
    given = {
        "epochs": asked.epochs,
        "batch": asked.batch_size,
        "rate": asked.rate,
        "weight_decay": asked.weight_decay,
    }
    return {key: value for key, value in given.items() if value is not None}


def from_features(config: EvaluationConfig, asked: Any, runtime: Runtime) -> Findings:
    """Logistic regression, or a sweep where there is no backbone to choose layers of."""
    found = labelled_features(asked.checkpoint, config, runtime)
    train, test = found.train, found.test
    if test is None:
        if train.labels is not None and train.labels.ndim == 2:
            raise UserError("images with several labels need a test part: name one with --data.test_split")
        train, test = set_aside(train, asked.seed)
        found.protocol |= {"test": f"{TEST_SHARE:.0%} of train", "test_images": len(test.features)}
    assert train.labels is not None
    if train.labels.ndim == 2:
        if asked.protocol != "logistic":
            raise UserError(f"--protocol {asked.protocol} needs one label an image: take --protocol logistic")
        ignored = [ignored_of(part) if part else None for part in found.images or (None, None)]
        outcome = logistic_of_labels(
            train,
            test,
            (ignored[0], ignored[1]),
            asked.strengths,
            runtime,
            standardise=asked.standardise,
            seed=asked.seed,
        )
        return outcome, found.protocol, found.provenance
    if asked.protocol == "logistic":
        outcome = logistic(
            train, test, asked.strengths, runtime, standardise=asked.standardise, seed=asked.seed
        )
    else:
        y, scored = count_like(train.labels, test)
        kept = kept_bench(train.tensor, y, scored, lambda h, _: h, asked, runtime)
        outcome = run_sweep(kept, [OUTPUT], asked, runtime, None)
    return outcome, found.protocol, found.provenance


def from_images(config: EvaluationConfig, asked: Any, runtime: Runtime) -> Findings:
    """A sweep or a published protocol, with a backbone at hand."""
    subject = open_frozen_model(asked.checkpoint, config, runtime)
    assert subject.backbone is not None
    if subject.test is None:
        rest, test = split_by_class(single_labels(subject.train), TEST_SHARE, asked.seed)
        subject.train, subject.test = (Subset(subject.train, rows.numpy()) for rows in (rest, test))
    recipe = PUBLISHED.get(asked.protocol)
    if recipe is not None:
        recipe = replace(recipe, **changes(asked))
        config.layers = published_layers(asked.protocol, subject.backbone)
        std = recipe.std or subject.transform.std
        subject.transform = replace(subject.transform, interpolation=recipe.test_interpolation, std=std)
    selections = asked.selections or [config.layers]
    layers = Layers(subject.backbone, selections)
    layers.measure(subject.transform.crop)
    y, scored = count_like(single_labels(subject.train), subject.features(subject.test, selections))
    file = epoch_file(asked, subject)
    if recipe is not None:
        source = augmented(subject, layers, y, np.arange(len(y)), recipe.batch, asked.seed)
        outcome = published(
            source, scored, layers.select, config.layers, recipe, runtime, seed=asked.seed, file=file,
            resume=asked.resume,
        )  # fmt: skip
        outcome.protocol |= {**vars(recipe), "changed": changes(asked)}
    else:
        if asked.augment:
            fitting, holding = split_by_class(y, HELD_OUT, asked.seed)
            held = subject.features(Subset(subject.train, holding.numpy()), selections).tensor
            source = augmented(
                subject, layers, y, fitting.numpy(), batch_for(asked, len(fitting)), asked.seed
            )
            bench = SweepData(source, (held, y[holding]), scored, layers.select)
        else:
            h = subject.features(subject.train, selections).tensor
            bench = kept_bench(h, y, scored, layers.select, asked, runtime)
        outcome = run_sweep(bench, selections, asked, runtime, file)
        outcome.protocol["augmented"] = asked.augment
    subject.require_untouched()
    return outcome, subject.protocol, subject.provenance


def augmented(
    subject: FrozenModel, layers: Layers, y: Tensor, indices: np.ndarray, batch: int, seed: int
) -> AugmentedFeatures:
    """Crops and flips of the train part through the frozen backbone."""
    images = AugmentedImages(
        subject.train, y, indices, crops_and_flips(subject.transform), batch, subject.runtime, seed,
        subject.workers,
    )  # fmt: skip
    if len(indices) < batch:
        raise UserError(
            f"the train part has {len(indices)} images and the batch is {batch}: lower it with --batch-size "
            "(the learning rate goes along)"
        )
    return AugmentedFeatures(layers, images, subject.config.batch)


def kept_bench(
    h: Tensor, y: Tensor, scored: TestSplit, select: Select, asked: Any, runtime: Runtime
) -> SweepData:
    """A held-out tenth of the features, and the rest to train on."""
    fitting, holding = split_by_class(y, HELD_OUT, asked.seed)
    source = KeptFeatures(h[fitting], y[fitting], batch_for(asked, len(fitting)), runtime, asked.seed)
    return SweepData(source, (h[holding], y[holding]), scored, select)


def batch_for(asked: Any, samples: int) -> int:
    """As asked; else 1024 (DINOv2's), or for small sets the power of two that makes an epoch of 8 updates."""
    return int(asked.batch_size or min(1024, max(32, 2 ** int(np.log2(max(samples / 8, 1))))))


def run_sweep(
    bench: SweepData, selections: list[str], asked: Any, runtime: Runtime, file: EpochFile | None
) -> Outcome:
    """The sweep as asked."""
    epochs = asked.epochs or sweep_epochs(bench.source.samples, bench.source.batch)
    return sweep(
        bench, selections, asked.optimizers, asked.rates, runtime, epochs=epochs,
        weight_decay=asked.weight_decay or 0.0, seed=asked.seed, file=file, resume=asked.resume,
    )  # fmt: skip


def epoch_file(asked: Any, subject: FrozenModel) -> EpochFile | None:
    """Where the state after an epoch is kept, if it is."""
    if asked.run is None:
        return None
    assert subject.read is not None
    stated = ("protocol", "augment", "selections", "optimizers", "rates", "seed")
    identity = {key: str(getattr(asked, key)) for key in stated} | {
        key: str(v) for key, v in changes(asked).items()
    }
    identity |= {"weights": subject.read.digest, "images": subject.train.fingerprint}
    return EpochFile(Path(asked.run) / "probe.pth", identity)


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint",
        nargs="?",
        default=None,
        help="checkpoint of any known format, or a baseline: random:NAME, torchvision:NAME, pixels",
    )
    parser.add_argument(
        "--protocol", choices=["logistic", "sweep", *PUBLISHED], default="logistic", help="see above"
    )
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=STRENGTHS, help="logistic: values of scikit-learn's C"
    )
    parser.add_argument(
        "--standardise", action="store_true", help="logistic: give every feature unit deviation first"
    )
    parser.add_argument(
        "--rates", type=float, nargs="+", default=RATES, help="sweep: rates for a batch of 256"
    )
    parser.add_argument(
        "--optimizers", choices=get_args(Rule), nargs="+", default=["sgd"], help="sweep: update rules"
    )
    parser.add_argument(
        "--selections", nargs="+", default=None, help="sweep: several choices of layers, each as in --layers"
    )
    parser.add_argument(
        "--augment", action="store_true", help="sweep: train on crops and flips, not on kept features"
    )
    parser.add_argument(
        "--epochs", type=int, default=None, help="passes over the images; a change is recorded"
    )
    parser.add_argument("--batch_size", type=int, default=None, help="images an update; a change is recorded")
    parser.add_argument(
        "--rate", type=float, default=None, help="published: another rate for a batch of 256; recorded"
    )
    parser.add_argument("--weight_decay", type=float, default=None, help="another weight decay; recorded")
    parser.add_argument("--run", metavar="DIR", default=None, help="keep the state after every epoch there")
    parser.add_argument("--resume", action="store_true", help="go on with the probe that --run keeps")
    parser.add_argument(
        "--seed", type=int, default=0, help="decides weights, order, crops and held-out parts"
    )


if __name__ == "__main__":
    run(main)
