"""The three kinds of linear probe, from features with labels to numbers: logistic, sweep and published.

Legend: N samples, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.data import ImageSet
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.linear.classifier_bank import Heads, HeadSetting, Rule
from siamtransfer.evaluation.linear.logistic import probe, split_by_class
from siamtransfer.evaluation.linear.multilabel import probe_labels
from siamtransfer.evaluation.linear.protocols import Published
from siamtransfer.evaluation.linear.train import Select, Source, train_heads
from siamtransfer.features.extract import Features
from siamtransfer.metrics.accuracy import bootstrap_interval, mean_per_class
from siamtransfer.metrics.average_precision import eleven_points, mean_average_precision
from siamtransfer.records.predictions import Predictions
from siamtransfer.training.epoch_checkpoint import EpochFile
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

TEST_SHARE, HELD_OUT = 0.2, 0.1
UPDATES = 5000  # of a sweep at least, unless that is more than MOST_EPOCHS
EPOCHS, MOST_EPOCHS = 10, 100


@dataclass
class Outcome:
    """What a probe found, and what its record has to say about how."""

    metrics: dict[str, float]
    protocol: dict[str, Any]
    predictions: Predictions


@dataclass
class TestSplit:
    """The part that is scored: features of all layers[N, D], and labels int64[N] counted like the train
    part's, -1 for a class that is not there. `values` int64[K] are the labels as they were given."""

    features: Tensor
    labels: Tensor
    values: Tensor
    metrics: dict[str, float] = field(default_factory=dict)

    def score(self, name: str, scores: Tensor) -> np.ndarray:
        """Enters top-1, top-5, the mean over classes and the interval of scores[N, K] under `name`; returns
        the predicted labels."""
        ranked = scores.topk(min(5, scores.shape[1]), dim=1).indices.cpu()
        hits = ranked == self.labels.cpu()[:, None]
        low, high = bootstrap_interval(hits[:, 0])
        own = torch.unique(self.labels.cpu(), return_inverse=True)[1]
        self.metrics |= {
            f"{name}/top1": 100 * float(hits[:, 0].double().mean()),
            f"{name}/top5": 100 * float(hits.any(dim=1).double().mean()),
            f"{name}/mean_per_class": mean_per_class(hits[:, 0], own),
            f"{name}/ci95_low": low,
            f"{name}/ci95_high": high,
        }
        return self.values[ranked[:, 0]].numpy()

    def given(self) -> np.ndarray:
        """The labels as they were given, -1 where train has none such."""
        return torch.where(self.labels < 0, -1, self.values[self.labels.clamp(min=0)]).numpy()


@dataclass
class SweepData:
    """What a sweep works on: features to train on, a held-out part of them (h[N, D], labels) to choose by,
    and the part that is scored."""

    source: Source
    held_out: tuple[Tensor, Tensor]
    scored: TestSplit
    select: Select


def single_labels(images: ImageSet) -> Tensor:
    """int64[N] of a labelled set.

    Raises:
        UserError: its images have several labels each.
    """
    assert images.labels is not None
    if images.labels.ndim == 2:
        raise UserError(f"{images.name} has several labels an image, and one is needed: take eval/svm.py")
    return torch.from_numpy(np.ascontiguousarray(images.labels))


def set_aside(train: Features, seed: int) -> tuple[Features, Features]:
    """(rest, test): where there is no test part, a fifth of every class serves as one."""
    assert train.labels is not None
    fitting, holding = split_by_class(train.labels, TEST_SHARE, seed)
    parts = [Features(train.tensor[rows], train.labels[rows]) for rows in (fitting, holding)]
    return parts[0], parts[1]


def count_like(train_labels: Tensor, test: Features) -> tuple[Tensor, TestSplit]:
    """The train part's labels counted from 0, and the test part in that count."""
    assert test.labels is not None
    values, y = torch.unique(train_labels, return_inverse=True)
    if len(values) < 2:
        raise UserError("a linear probe needs labels of at least two classes in the train split")
    places = torch.searchsorted(values, test.labels).clamp(max=len(values) - 1)
    return y, TestSplit(test.tensor, torch.where(values[places] == test.labels, places, -1), values)


def logistic(
    train: Features,
    test: Features,
    strengths: Sequence[float],
    runtime: Runtime,
    *,
    standardise: bool,
    seed: int,
) -> Outcome:
    """Multinomial logistic regression by L-BFGS at the strength that a held-out tenth of train chooses."""
    assert train.labels is not None
    y, scored = count_like(train.labels, test)
    device = runtime.device
    result = probe(
        train.tensor.to(device), y.to(device), strengths=strengths, standardise=standardise, seed=seed
    )
    predicted = scored.score("linear", result.classifier.scores(scored.features.to(device)))
    protocol = {
        "classifier": "multinomial logistic regression, L-BFGS",
        "standardised": standardise,
        "strengths": list(strengths),
        "chosen_strength": result.classifier.strength,
        "chosen_on": "a held-out tenth of train",
        "held_out_top1": {f"{c:.4g}": value for c, value in result.held_out.items()},
        "seed": seed,
    }
    return Outcome(scored.metrics, protocol, Predictions(scored.given(), {"linear": predicted}))


def logistic_of_labels(
    train: Features,
    test: Features,
    ignored: tuple[np.ndarray | None, np.ndarray | None],
    strengths: Sequence[float],
    runtime: Runtime,
    *,
    standardise: bool,
    seed: int,
) -> Outcome:
    """The same for images with several labels, labels[N, C] of 0 and 1: a binary regression a class, all of
    one strength; `ignored` bool[N, C] of train and test say which labels do not count."""
    assert train.labels is not None
    assert test.labels is not None
    device = runtime.device
    hidden = None if ignored[0] is None else torch.from_numpy(ignored[0]).to(device)
    result = probe_labels(
        train.tensor.to(device), train.labels.to(device), strengths=strengths, ignored=hidden,
        standardise=standardise, seed=seed,
    )  # fmt: skip
    scores = result.classifier.scores(test.tensor.to(device)).cpu()
    truth = test.labels.numpy()
    metrics = {
        "linear/mAP": mean_average_precision(scores.numpy(), truth, ignored[1]),
        "linear/mAP_11point": mean_average_precision(scores.numpy(), truth, ignored[1], eleven_points),
    }
    protocol = {
        "classifier": "binary logistic regression a class, L-BFGS",
        "standardised": standardise,
        "strengths": list(strengths),
        "chosen_strength": result.classifier.strength,
        "chosen_on": "a held-out tenth of train",
        "held_out_mAP": {f"{c:.4g}": value for c, value in result.held_out.items()},
        "seed": seed,
    }
    return Outcome(metrics, protocol, Predictions(truth, {"linear": scores.double().numpy()}))


def sweep_epochs(samples: int, batch: int) -> int:
    """EPOCHS, or for small sets as many as make UPDATES updates, but MOST_EPOCHS at most."""
    return min(MOST_EPOCHS, max(EPOCHS, -(-UPDATES // -(-samples // batch))))


def sweep(
    bench: SweepData,
    selections: Sequence[str],
    rules: Sequence[Rule],
    rates: Sequence[float],
    runtime: Runtime,
    *,
    epochs: int,
    weight_decay: float,
    seed: int,
    file: EpochFile | None = None,
    resume: bool = False,
) -> Outcome:
    """A head for every selection of layers, update rule and rate (of lr x batch / 256), all trained at once
    with one smooth cosine to zero; the best on the held-out part scores the test part, once."""
    source, scored, select = bench.source, bench.scored, bench.select
    settings = [HeadSetting(rule, rate * source.batch / 256) for rule, rate in product(rules, rates)]
    heads = {
        name: _heads(settings, select(scored.features[:1], name), scored, weight_decay, seed, runtime)
        for name in selections
    }
    train_heads(
        heads, source, select, lambda _, done: 0.5 * (1 + np.cos(np.pi * done)), epochs, runtime,
        file=file, resume=resume,
    )  # fmt: skip
    found = {
        (name, number): float(value)
        for name, bank in heads.items()
        for number, value in enumerate(bank.accuracy(select(bench.held_out[0], name), bench.held_out[1]))
    }
    chosen = max(found, key=lambda key: found[key])
    layers, number = chosen
    predicted = scored.score("linear", heads[layers].scores_of(select(scored.features, layers), number))
    protocol = {
        "classifier": "linear heads trained at once, one chosen",
        "rules": list(rules),
        "rates": list(rates),
        "selections": list(selections),
        "batch": source.batch,
        "epochs": epochs,
        "weight_decay": weight_decay,
        "chosen_head": {"layers": layers, "rule": settings[number].rule, "rate": rates[number % len(rates)]},
        "chosen_on": "a held-out tenth of train",
        "held_out_top1": {
            f"{name}/{settings[head].rule}/{rates[head % len(rates)]:g}": value
            for (name, head), value in found.items()
        },
        "seed": seed,
    }
    return Outcome(scored.metrics, protocol, Predictions(scored.given(), {"linear": predicted}))


def published(
    source: Source,
    scored: TestSplit,
    select: Select,
    layers: str,
    protocol: Published,
    runtime: Runtime,
    *,
    seed: int,
    file: EpochFile | None = None,
    resume: bool = False,
) -> Outcome:
    """One head by a published recipe; the last epoch's numbers, and those of the best epoch on the test part,
    which most of the literature reports."""
    features = select(scored.features, layers)
    settings = [HeadSetting(protocol.rule, protocol.rate * source.batch / 256)]
    bank = _heads(settings, features[:1], scored, protocol.weight_decay, seed, runtime)

    def after_epoch(epoch: int) -> dict[str, Any]:
        top1, top5 = (float(bank.accuracy(features, scored.labels, top)[0]) for top in (1, 5))
        if runtime.is_main:
            say(f"epoch {epoch + 1}: top-1 {top1:.2f} %, top-5 {top5:.2f} %")
        return {"top1": top1, "top5": top5}

    epochs = train_heads(
        {layers: bank}, source, select, lambda epoch, _: protocol.decay(epoch), protocol.epochs, runtime,
        after_epoch=after_epoch, file=file, resume=resume,
    )  # fmt: skip
    predicted = scored.score("linear/last", bank.scores_of(features, 0))
    best = max(range(len(epochs)), key=lambda epoch: epochs[epoch]["top1"])
    scored.metrics |= {f"linear/best_on_test/{name}": value for name, value in epochs[best].items()}
    scored.metrics["linear/best_on_test/epoch"] = best + 1
    scored.metrics |= {f"linear/epoch={n}/top1": epoch["top1"] for n, epoch in enumerate(epochs, 1)}
    return Outcome(scored.metrics, {"seed": seed}, Predictions(scored.given(), {"linear/last": predicted}))


def _heads(
    settings: list[HeadSetting],
    sample: Tensor,
    scored: TestSplit,
    weight_decay: float,
    seed: int,
    runtime: Runtime,
) -> Heads:
    return Heads(
        settings,
        sample.shape[1],
        len(scored.values),
        weight_decay=weight_decay,
        seed=seed,
        device=runtime.device,
    )
