"""The linear probe by logistic regression, from features with labels to numbers.

Legend: N samples, D features, C labels of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.linear.logistic import probe
from siamtransfer.evaluation.linear.multilabel import probe_labels
from siamtransfer.evaluation.linear.rows import place
from siamtransfer.evaluation.linear.splits import number_classes
from siamtransfer.features.extract import Features
from siamtransfer.metrics.average_precision import eleven_points, mean_average_precision
from siamtransfer.records.predictions import Predictions


@dataclass
class ProbeResult:
    """The numbers of a probe, what its record says about the method, and the predictions."""

    metrics: dict[str, float]
    protocol: dict[str, Any]
    predictions: Predictions


def logistic_probe(
    train: Features,
    test: Features,
    strengths: Sequence[float],
    runtime: Runtime,
    *,
    standardise: bool,
    seed: int,
) -> ProbeResult:
    """Multinomial logistic regression by L-BFGS at the strength that a held-out tenth of train chooses."""
    assert train.labels is not None
    y, split = number_classes(train.labels, test)
    device = runtime.device
    rows, test_rows = place(train.tensor, device), place(split.features, device)
    result = probe(rows, y.to(device), strengths=strengths, standardise=standardise, seed=seed)
    predicted = split.score("linear", result.classifier.scores(test_rows))
    protocol = {
        "classifier": "multinomial logistic regression, L-BFGS",
        "standardised": standardise,
        "strengths": list(strengths),
        "chosen_strength": result.classifier.strength,
        "chosen_on": "a held-out tenth of train",
        "held_out_top1": {f"{c:.4g}": value for c, value in result.held_out.items()},
        "seed": seed,
    }
    return ProbeResult(split.metrics, protocol, split.predictions({"linear": predicted}))


def multilabel_probe(
    train: Features,
    test: Features,
    ignored: tuple[np.ndarray | None, np.ndarray | None],
    strengths: Sequence[float],
    runtime: Runtime,
    *,
    standardise: bool,
    seed: int,
) -> ProbeResult:
    """The same for images with several labels, labels[N, C] of 0 and 1: a binary regression a class, all of
    one strength; `ignored` bool[N, C] of train and test say which labels do not count."""
    assert train.labels is not None
    assert test.labels is not None
    device = runtime.device
    train_ignored = None if ignored[0] is None else torch.from_numpy(ignored[0]).to(device)
    result = probe_labels(
        place(train.tensor, device),
        train.labels.to(device),
        strengths=strengths,
        ignored=train_ignored,
        standardise=standardise,
        seed=seed,
    )
    scores = result.classifier.scores(place(test.tensor, device)).cpu()
    labels = test.labels.numpy()
    metrics = {
        "linear/mAP": mean_average_precision(scores.numpy(), labels, ignored[1]),
        "linear/mAP_11point": mean_average_precision(scores.numpy(), labels, ignored[1], eleven_points),
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
    return ProbeResult(metrics, protocol, Predictions(labels, {"linear": scores.double().numpy()}))
