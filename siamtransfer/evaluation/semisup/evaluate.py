"""The semi-supervised evaluator: fine-tunes on the labelled images and scores after every epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.subset import Subset, draw_by_class
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.evaluation.finetuning import FINETUNING, Classifier, FinetuningPlan, finetune
from siamtransfer.evaluation.frozen_model import FrozenModel, open_frozen_model
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages, crops_and_flips
from siamtransfer.evaluation.linear.splits import TestSplit, number_classes, single_labels
from siamtransfer.evaluation.semisup.config import SemisupConfig
from siamtransfer.features.extract import Features, extract
from siamtransfer.records.result import Result
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def evaluate(config: SemisupConfig, runtime: Runtime) -> Result | None:
    """The numbers of the last epoch and of the best one on the test split; None on all ranks but the first.

    Raises:
        UserError: the recipe has no learning rates for the percentage, the set has no test split, there are
            fewer labelled images than a batch has, or whatever reading checkpoint or images finds.
    """
    plan = plan_finetuning(config)
    model = open_frozen_model(config.checkpoint, config, runtime)
    if model.test is None:
        raise UserError(
            f"{model.train.name} has no test part to score: name one with --data.test_split, or put "
            "one beside train/"
        )
    train = _labelled_images(model, config)
    test = Features(torch.zeros(len(model.test), 0), single_labels(model.test))
    y, split = number_classes(torch.from_numpy(train.labels), test)
    protocol = {
        **model.protocol,
        **vars(plan.recipe),
        "protocol": config.protocol,
        "percent": config.percent,
        "rates": plan.lrs,
        "epochs": plan.epochs,
        "seed": config.seed,
        "labelled_images": len(train),
    }
    predicted = _finetune(model, train, y, split, plan, config)
    if not runtime.is_main:
        return None
    say_metrics(split.metrics)
    predictions = split.predictions({"semisup/last": predicted})
    return Result("semisup", split.metrics, protocol, model.provenance, predictions)


def plan_finetuning(config: SemisupConfig) -> FinetuningPlan:
    """The recipe, with its learning rates and epochs for the percentage of labels.

    Raises:
        UserError: the recipe has no learning rates for the percentage, and the options name none.
    """
    recipe, percent = FINETUNING[config.protocol], config.percent
    if config.lrs is None and percent not in recipe.rates:
        raise UserError(
            f"{config.protocol} has learning rates for {', '.join(map(str, recipe.rates))} % of the labels, "
            f"not for {percent:g} %: give --lrs BACKBONE CLASSIFIER"
        )
    backbone, classifier = config.lrs or recipe.rates[int(percent)]
    published = recipe.epochs[int(percent)] if percent in recipe.epochs else max(recipe.epochs.values())
    return FinetuningPlan(recipe, (backbone, classifier), config.epochs or published)


def _labelled_images(model: FrozenModel, config: SemisupConfig) -> Subset:
    """The images of --data.list_file, or a part of every class of train that the seed draws."""
    labels = single_labels(model.train)
    if config.data.list_file is not None:
        return Subset(model.train, np.arange(len(labels)))
    return Subset(model.train, draw_by_class(labels.numpy(), config.percent / 100, config.seed))


def _finetune(
    model: FrozenModel,
    train: Subset,
    y: Tensor,
    split: TestSplit,
    plan: FinetuningPlan,
    config: SemisupConfig,
) -> np.ndarray:
    """Fine-tunes, enters the metrics in `split`, and returns the labels that the last epoch predicts."""
    assert model.backbone is not None and model.read is not None and model.test is not None
    runtime, images = model.runtime, model.test
    batch_size = config.batch_size or plan.recipe.batch
    if len(train) < batch_size:
        raise UserError(
            f"there are {len(train)} labelled images and the batch is {batch_size}: lower it with "
            "--batch-size (the learning rates go along)"
        )
    batches = AugmentedImages(
        train,
        y,
        np.arange(len(y)),
        crops_and_flips(model.transform),
        batch_size,
        runtime,
        config.seed,
        model.workers,
        drop_last=True,
    )
    torch.manual_seed(config.seed)
    classifier = Classifier(model.backbone, len(split.values))
    scores = Tensor()

    def after_epoch(epoch: int) -> dict[str, float]:
        nonlocal scores
        scores = extract(
            classifier,
            images,
            model.transform,
            runtime,
            batch=config.forward_batch_size,
            workers=model.workers,
        )
        split.score("semisup/last", scores)
        top1, top5 = (split.metrics[f"semisup/last/{name}"] for name in ("top1", "top5"))
        if runtime.is_main:
            say(f"epoch {epoch + 1}: top-1 {top1:.2f} %, top-5 {top5:.2f} %")
        return {"top1": top1, "top5": top5}

    saved = _saved_training(config, plan, batch_size, model, train)
    notes = finetune(classifier, batches, plan, runtime, after_epoch=after_epoch, saved=saved)
    if not len(scores):  # resumed after its last epoch
        after_epoch(plan.epochs - 1)
    predicted = split.score("semisup/last", scores)
    best = max(range(len(notes)), key=lambda epoch: notes[epoch]["top1"])
    split.metrics |= {f"semisup/best_on_test/{name}": value for name, value in notes[best].items()}
    split.metrics["semisup/best_on_test/epoch"] = best + 1
    split.metrics |= {f"semisup/epoch={n}/top1": note["top1"] for n, note in enumerate(notes, 1)}
    return predicted


def _saved_training(
    config: SemisupConfig, plan: FinetuningPlan, batch_size: int, model: FrozenModel, train: ImageSet
) -> SavedTraining | None:
    """The saved state of the training, where `--run` asks for one. Its identity has the names of options of
    the first version, so that a training that an older version began can go on."""
    if config.run is None:
        return None
    assert model.read is not None
    identity = {
        "protocol": config.protocol,
        "rates": str(plan.lrs),
        "epochs": str(plan.epochs),
        "batch": str(batch_size),
        "weights": model.read.digest,
        "network": repr(model.read.architecture),
        "images": train.fingerprint,
        "transform": repr(model.transform),
        "seed": str(config.seed),
    }
    return SavedTraining(Path(config.run) / "semisup.pth", identity, resume=config.resume)
