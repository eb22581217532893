"""Choosing among the checkpoints of a sweep without labels, and how reliable such choices are.

The rules compare runs of one method that differ in a setting: RankMe and LiDAR cannot be compared across
methods or widths, α depends on the range of its fit, alignment and uniformity have another scale for each
method. The loss is no rule: a collapsed network has the best one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

GUARD = 0.2
"""The least output std; a checkpoint below it has collapsed and is never chosen."""

RULES: dict[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    "rankme": (("rankme",), lambda rank: rank),  # Garrido et al. 2023
    "lidar": (("lidar",), lambda rank: rank),  # Thilak et al. 2023
    "alpha_req": (("alpha_req",), lambda alpha: -abs(alpha - 1)),  # Agrawal et al. 2022
    "alignment+uniformity": (("alignment", "uniformity"), lambda a, u: -(a + u)),  # Wang and Isola 2020
}
"""Of each rule the diagnostics that it reads and its score of them; the checkpoint with the largest is
chosen."""


def score_rules(numbers: Sequence[Mapping[str, float]], representation: str) -> dict[str, list[float]]:
    """The score of each checkpoint by each rule, from its metrics `NAME/REPRESENTATION`; a rule is left out
    where a checkpoint lacks one of its diagnostics. Minus infinity for a checkpoint that has collapsed (see
    GUARD) or a diagnostic that is not finite."""
    return {
        rule: [_score(metrics, representation, names, score_of) for metrics in numbers]
        for rule, (names, score_of) in RULES.items()
        if all(f"{name}/{representation}" in metrics for metrics in numbers for name in names)
    }


def choose(scores: Sequence[float]) -> int | None:
    """The index of the best score, the first of equal ones; None where every checkpoint has collapsed."""
    best = int(np.argmax(scores))
    return best if scores[best] > -math.inf else None


def validity(scores: Sequence[float], accuracies: Sequence[float]) -> dict[str, float]:
    """How a rule's scores agree with accuracies that were measured with labels: Kendall's τ and Spearman's ρ
    (NaN where either does not vary), and the `regret`, the best accuracy less that of the choice."""
    chosen = choose(scores)
    varies = len(set(scores)) > 1 and len(set(accuracies)) > 1
    return {
        "kendall": float(stats.kendalltau(scores, accuracies).statistic) if varies else math.nan,
        "spearman": float(stats.spearmanr(scores, accuracies).statistic) if varies else math.nan,
        "regret": max(accuracies) - accuracies[chosen] if chosen is not None else math.nan,
    }


def _score(
    metrics: Mapping[str, float], representation: str, names: Sequence[str], score_of: Callable[..., float]
) -> float:
    score = score_of(*(metrics[f"{name}/{representation}"] for name in names))
    return score if metrics[f"std/{representation}"] >= GUARD and math.isfinite(score) else -math.inf
