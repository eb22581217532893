"""Logistic regression for images with several labels: each class against the rest, all in one fit.

A class's objective is scikit-learn's, C Σ_i CE_i + ½‖w‖² with an unpenalised bias, over the images whose
label for it counts. Classes share nothing but the strength C, so the sum of their objectives has the same
minimum.

Legend: N images, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.distributed.runtime import exact_matmul
from siamtransfer.evaluation.linear.logistic import (
    ChosenClassifier,
    LogisticRegression,
    split_by_class,
)
from siamtransfer.evaluation.linear.rows import Rows
from siamtransfer.metrics.average_precision import Rule, all_points, mean_average_precision
from siamtransfer.utils.errors import UserError


class MultiLabelRegression(LogisticRegression):
    """One problem, features[N, D] and labels int64[N, K] of 0 and 1, to be solved at many strengths; labels
    that are ignored, bool[N, K], do not count.

    Raises:
        UserError: a class is shown by none of its images, or by all: no finite bias is best.
    """

    def __init__(
        self,
        features: Tensor | Rows,
        labels: Tensor,
        ignored: Tensor | None = None,
        *,
        standardise: bool = False,
        dtype: torch.dtype = torch.float64,
    ):
        counted = torch.ones_like(labels, dtype=torch.bool) if ignored is None else ~ignored
        shown = (labels.bool() & counted).sum(dim=0)
        for c in torch.nonzero((shown == 0) | (shown == counted.sum(dim=0))).flatten().tolist():
            raise UserError(
                f"class {c} (from 0) is shown by {'all' if shown[c] else 'none'} of the images to be fitted: "
                "leave it out or take more images"
            )
        super().__init__(features, labels, standardise=standardise, dtype=dtype)
        self.targets, self.counted = labels.bool(), counted
        self.classes = torch.arange(labels.shape[1], device=labels.device)

    def loss(self, scores: Tensor, part: slice = slice(None)) -> Tensor:
        """The sum over classes of binary cross-entropies, of the samples `part`, over N; a class's score is
        above 0 where it is likelier shown than not."""
        targets, counted = self.targets[part].to(scores), self.counted[part].to(scores)
        entropy = F.binary_cross_entropy_with_logits(scores, targets, counted, reduction="sum")
        return entropy / len(self.rows)


def probe_labels(
    train: Tensor | Rows,
    labels: Tensor,
    *,
    strengths: Sequence[float],
    ignored: Tensor | None = None,
    standardise: bool = False,
    held_out_fraction: float = 0.1,
    seed: int = 0,
    rule: Rule = all_points,
) -> ChosenClassifier:
    """Chooses one C for all classes on a held-out part of train, by the mean over classes of the average
    precision that `rule` defines, and refits on all of train. `held_out` of the result holds those means.

    Raises:
        UserError: a class is shown by none of the images that are fitted, or by all.
    """

    rows = Rows.of(train)

    def subset(chosen: Tensor) -> tuple[Rows, Tensor, Tensor | None]:
        return rows.select(chosen), labels[chosen], None if ignored is None else ignored[chosen]

    final = MultiLabelRegression(train, labels, ignored, standardise=standardise)
    if len(strengths) == 1:
        return ChosenClassifier(final.fit(strengths[0])[0], {})
    fitted, held_out = split_by_rarest(labels, ignored, held_out_fraction, seed)
    problem = MultiLabelRegression(*subset(fitted), standardise=standardise, dtype=torch.float32)
    h, y, y_ignored = subset(held_out)
    truth = y.cpu().numpy(), None if y_ignored is None else y_ignored.cpu().numpy()
    precisions: dict[float, float] = {}
    start = None
    for strength in sorted(strengths):
        with exact_matmul():
            classifier, start = problem.fit(strength, start=start, max_steps=200, tolerance=1e-4)
        precisions[strength] = mean_average_precision(classifier.scores(h).cpu().numpy(), *truth, rule)
    best = max(precisions, key=lambda c: (precisions[c], -c))
    return ChosenClassifier(final.fit(best)[0], precisions)


def split_by_rarest(
    labels: Tensor, ignored: Tensor | None, fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Indices (fitted, held out): `fraction` of the images of each class is held out by `seed`, where an
    image with several labels belongs to the rarest of them. So a class that some image shows is among the
    fitted ones."""
    shown = labels.bool() if ignored is None else labels.bool() & ~ignored
    counts = torch.where(shown, shown.sum(dim=0), len(labels) + 1)
    rarest = torch.where(shown.any(dim=1), counts.argmin(dim=1), labels.shape[1])
    return split_by_class(rarest, fraction, seed)
