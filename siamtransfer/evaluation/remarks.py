"""Remarks on features and labels that make a number say less than it seems to.

They are printed beside the numbers and kept in the record, under `remarks`.

Legend: N images, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from siamtransfer.features.extract import Features
from siamtransfer.metrics.unit_rows import largest_of_rows
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few

Use = Literal["cosine", "euclidean", "logistic", "standardised", "gradient descent", "svm", "measures"]
"""What the evaluator does with the features."""

ROWS, SAMPLED = 8192, 2**16  # rows of a chunk, and looked at in all
CONSTANT = 1e-6  # deviation over mean of a feature that says nothing: float32 keeps seven digits
DOMINANT = 0.9  # part of the mean squared length
SPREAD = (1e-3, 1e3)  # deviations that the usual strengths and learning rates suit


def add_remarks(protocol: dict[str, Any], remarks: Sequence[str]) -> None:
    """Says each remark and enters them in the protocol, behind those that it has; none stands there twice."""
    for remark in remarks:
        say(f"remark: {remark}")
    if remarks:
        protocol["remarks"] = list(dict.fromkeys([*protocol.get("remarks", []), *remarks]))


def remarks_on(train: Features, test: Features | None, use: Use) -> list[str]:
    """A sentence for each thing that makes the numbers of these features doubtful; [] as a rule."""
    remarks = remarks_on_features(train.features, "train", use)
    if test is not None:
        remarks += _on_zeros(test.features, "test")
        remarks += remarks_on_labels(train.labels, test.labels)
    return remarks


def remarks_on_labels(train: Tensor | None, test: Tensor | None) -> list[str]:
    """Remarks on labels int64[N] of train and test: classes that only test has."""
    if train is None or test is None or train.ndim != 1 or test.ndim != 1:
        return []
    known = torch.isin(test.cpu(), train.cpu())
    if bool(known.all()):
        return []
    absent = [str(label) for label in torch.unique(test.cpu()[~known]).tolist()]
    if not bool(known.any()):
        return [
            "train and test share no label, so every accuracy is 0 whatever the features are: check that "
            "both number their classes alike"
        ]
    share = 100 * float((~known).double().mean())
    return [
        f"{len(absent)} classes are in test and not in train ({first_few(absent)}): "
        f"their images, {share:.3g} % of test, count as wrong"
    ]


def remarks_on_features(features: Tensor | np.ndarray, part: str, use: Use) -> list[str]:
    """Remarks on features[N, D] of a split: zeros, features that drown the others, and their scale."""
    remarks = _on_zeros(features, part)
    mean, deviation, lengths = _moments(features)
    if not lengths > 0:
        return remarks
    constant = deviation <= CONSTANT * mean.abs()
    shares = torch.where(constant, mean.square(), 0) / lengths
    if use in ("cosine", "svm", "measures", "gradient descent") and float(shares.sum()) > DOMINANT:
        worst = int(shares.argmax())
        remarks.append(
            f"features that are the same in all images of {part} ({int(constant.sum())}, such as feature "
            f"{worst} with {float(mean[worst]):.4g}) make {100 * float(shares.sum()):.4g} % of the features' "
            "squared length and drown the others: take them out"
        )
    spread = float(deviation.square().mean().sqrt())
    if use in ("logistic", "gradient descent") and not SPREAD[0] <= spread <= SPREAD[1]:
        cure = "add --standardise" if use == "logistic" else "multiply the features by a constant"
        grid = "strengths" if use == "logistic" else "learning rates"
        remarks.append(
            f"the features of {part} deviate by {spread:.3g} on average, which the usual {grid} do not suit: "
            f"{cure}, or give other {grid}"
        )
    length = float(lengths) ** 0.5
    if use == "svm" and length < 1e-2:
        remarks.append(
            f"the features of {part} have a length of {length:.3g}, beside which the 1e-5 that the protocol "
            "adds to it counts: multiply the features by a constant"
        )
    return remarks


def _on_zeros(features: Tensor | np.ndarray, part: str) -> list[str]:
    zeros = sum(int((largest_of_rows(chunk) == 0).sum()) for chunk in _chunks(features))
    if not zeros:
        return []
    share = 100 * zeros / len(range(0, len(features), _step(features)))
    return [f"the features of {share:.3g} % of the images of {part} are all zero: they say nothing"]


def _moments(features: Tensor | np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, deviation) of each feature, float64[D], and the mean squared length of a row."""
    n = len(range(0, len(features), _step(features)))
    mean = sum((chunk.sum(dim=0) for chunk in _chunks(features)), torch.zeros(())) / n
    squares = sum(((chunk - mean).square().sum(dim=0) for chunk in _chunks(features)), torch.zeros(())) / n
    return mean, squares.sqrt(), (squares + mean.square()).sum()


def _step(features: Tensor | np.ndarray) -> int:
    """Every how many rows are looked at: all, or of large sets about SAMPLED evenly taken ones."""
    return -(-len(features) // SAMPLED)


def _chunks(features: Tensor | np.ndarray) -> Iterator[Tensor]:
    """The rows that are looked at as float64[n, D] on the CPU, ROWS at a time."""
    step = _step(features)
    for begin in range(0, len(features), ROWS * step):
        rows = features[begin : begin + ROWS * step : step]
        yield torch.as_tensor(np.array(rows) if isinstance(rows, np.ndarray) else rows).cpu().double()
