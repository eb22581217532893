"""Linear classifiers trained by gradient descent: a sweep over settings, or one by a published recipe.

Legend: N samples, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.linear.classifier_bank import ClassifierBank, ClassifierSetting
from siamtransfer.evaluation.linear.config import ProbeOptimizer
from siamtransfer.evaluation.linear.probe import ProbeResult
from siamtransfer.evaluation.linear.protocols import PublishedProtocol
from siamtransfer.evaluation.linear.splits import TestSplit
from siamtransfer.evaluation.linear.train import ClassifierSchedule, FeatureBatches, Select, train_heads
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.utils.log import say

HELD_OUT = 0.1
"""Fraction of every class of train that a sweep chooses its classifier by."""
UPDATES = 5000  # of a sweep at least, unless that is more than MOST_EPOCHS
EPOCHS, MOST_EPOCHS = 10, 100


@dataclass
class SweepData:
    """Batches of features to train on, the split that is scored, and how a selection of layers is taken from
    the features of all. `held_out` (h[N, D], labels int64[N]) is the part of train that a sweep chooses
    by."""

    batches: FeatureBatches
    test: TestSplit
    select: Select
    held_out: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class SweepSettings:
    """A classifier is trained for every selection of layers, optimizer and learning rate (of lr x batch /
    256)."""

    selections: Sequence[str]
    optimizers: Sequence[ProbeOptimizer]
    lrs: Sequence[float]
    epochs: int
    weight_decay: float
    seed: int

    def classifiers(self, batch_size: int) -> list[ClassifierSetting]:
        """Every optimizer with every learning rate."""
        pairs = product(self.optimizers, self.lrs)
        return [ClassifierSetting(optimizer, lr * batch_size / 256) for optimizer, lr in pairs]

    def lr_of(self, number: int) -> float:
        """The learning rate, for a batch of 256, of classifier `number` of `classifiers`."""
        return self.lrs[number % len(self.lrs)]


def sweep_epochs(samples: int, batch_size: int) -> int:
    """EPOCHS, or for small sets as many as make UPDATES updates, but MOST_EPOCHS at most."""
    return min(MOST_EPOCHS, max(EPOCHS, -(-UPDATES // -(-samples // batch_size))))


def sweep_probe(
    data: SweepData,
    settings: SweepSettings,
    runtime: Runtime,
    *,
    saved: SavedTraining | None = None,
) -> ProbeResult:
    """Trains all classifiers at once with one smooth cosine to zero; the best on the held-out part scores the
    test split, once."""
    batches, test, select = data.batches, data.test, data.select
    assert data.held_out is not None
    classifiers = settings.classifiers(batches.batch)
    banks = {
        name: _bank(classifiers, select(test.features[:1], name), test, settings, runtime)
        for name in settings.selections
    }
    train_heads(
        banks,
        batches,
        select,
        ClassifierSchedule(settings.epochs, lambda _, done: 0.5 * (1 + np.cos(np.pi * done))),
        runtime,
        saved=saved,
    )
    h, labels = data.held_out
    accuracies = {
        (name, number): float(value)
        for name, bank in banks.items()
        for number, value in enumerate(bank.accuracy(select(h, name), labels))
    }
    layers, number = max(accuracies, key=lambda key: accuracies[key])
    predicted = test.score("linear", banks[layers].scores_of(select(test.features, layers), number))
    protocol = {
        "classifier": "linear heads trained at once, one chosen",
        "rules": list(settings.optimizers),
        "rates": list(settings.lrs),
        "selections": list(settings.selections),
        "batch": batches.batch,
        "epochs": settings.epochs,
        "weight_decay": settings.weight_decay,
        "chosen_head": {
            "layers": layers,
            "rule": classifiers[number].optimizer,
            "rate": settings.lr_of(number),
        },
        "chosen_on": "a held-out tenth of train",
        "held_out_top1": {
            f"{name}/{classifiers[head].optimizer}/{settings.lr_of(head):g}": value
            for (name, head), value in accuracies.items()
        },
        "seed": settings.seed,
    }
    return ProbeResult(test.metrics, protocol, test.predictions({"linear": predicted}))


def published_probe(
    data: SweepData,
    layers: str,
    protocol: PublishedProtocol,
    runtime: Runtime,
    *,
    seed: int,
    saved: SavedTraining | None = None,
) -> ProbeResult:
    """One classifier by a published recipe; the last epoch's numbers, and those of the best epoch on the test
    split, which most of the literature reports."""
    batches, test, select = data.batches, data.test, data.select
    features = select(test.features, layers)
    settings = SweepSettings(
        [layers], [protocol.optimizer], [protocol.lr], protocol.epochs, protocol.weight_decay, seed
    )
    bank = _bank(settings.classifiers(batches.batch), features[:1], test, settings, runtime)

    def after_epoch(epoch: int) -> dict[str, float]:
        top1, top5 = (float(bank.accuracy(features, test.labels, top)[0]) for top in (1, 5))
        if runtime.is_main:
            say(f"epoch {epoch + 1}: top-1 {top1:.2f} %, top-5 {top5:.2f} %")
        return {"top1": top1, "top5": top5}

    epochs = train_heads(
        {layers: bank},
        batches,
        select,
        ClassifierSchedule(protocol.epochs, lambda epoch, _: protocol.decay(epoch)),
        runtime,
        after_epoch=after_epoch,
        saved=saved,
    )
    predicted = test.score("linear/last", bank.scores_of(features, 0))
    best = max(range(len(epochs)), key=lambda epoch: epochs[epoch]["top1"])
    test.metrics |= {f"linear/best_on_test/{name}": value for name, value in epochs[best].items()}
    test.metrics["linear/best_on_test/epoch"] = best + 1
    test.metrics |= {f"linear/epoch={n}/top1": epoch["top1"] for n, epoch in enumerate(epochs, 1)}
    return ProbeResult(test.metrics, {"seed": seed}, test.predictions({"linear/last": predicted}))


def _bank(
    classifiers: list[ClassifierSetting],
    sample: Tensor,
    test: TestSplit,
    settings: SweepSettings,
    runtime: Runtime,
) -> ClassifierBank:
    return ClassifierBank(
        classifiers,
        sample.shape[1],
        len(test.values),
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        device=runtime.device,
    )
