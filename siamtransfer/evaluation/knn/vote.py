"""What neighbours say about a query: the weighted vote of Wu et al. (2018), and how often it is right.

Legend: Q queries, k neighbours, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from siamtransfer.evaluation.knn.search import BUDGET, Metric, search
from siamtransfer.metrics.accuracy import bootstrap_interval, hits, mean_per_class, percent
from siamtransfer.metrics.average_precision import mean_average_precision, steps

TOGETHER = 4096  # queries whose class scores are held at once


@dataclass
class KnnScores:
    """Numbers by name, and per setting (`k=20/T=0.07`) what was predicted: int64[Q] labels, or float64[Q, C]
    scores where labels are multi-hot."""

    metrics: dict[str, float] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)


def knn_scores(
    bank: Tensor | np.ndarray,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    ks: Sequence[int],
    temperatures: Sequence[float | None],
    *,
    leave_out: Tensor | None = None,
    metric: Metric = "cosine",
    budget: int = BUDGET,
) -> KnnScores:
    """kNN for every k and temperature (None: each neighbour counts alike) from one search at the largest
    k."""
    found = search(bank, queries, max(ks), leave_out=leave_out, metric=metric, budget=budget)
    return score_neighbours(*found, bank_labels, query_labels, ks, temperatures, metric=metric)


def score_neighbours(
    similarities: Tensor,
    indices: Tensor,
    bank_labels: Tensor,
    query_labels: Tensor,
    ks: Sequence[int],
    temperatures: Sequence[float | None],
    *,
    metric: Metric = "cosine",
) -> KnnScores:
    """Scores the answer of `search`. Labels are any integers [N] and [Q], or 0 and 1 for each class, [N, C]
    and [Q, C].

    Names are `knn/k=20/T=0.07/top1`, with `top5`, `mean_per_class` and the bootstrap's 95 % interval
    `ci95_low` to `ci95_high` of top1; `knn/…/mAP` for labels per class. Euclidean votes weigh 1 / (distance +
    1e-5).
    """
    similarities, indices = similarities.cpu(), indices.cpu()
    found = KnnScores()
    if bank_labels.ndim == 2:
        for name, parts in _settings(similarities, ks, temperatures, metric):
            votes = _label_scores(parts, indices, bank_labels)
            found.predictions[name] = votes
            found.metrics[f"knn/{name}/mAP"] = mean_average_precision(votes, query_labels.numpy(), rule=steps)
        return found
    values, dense = torch.unique(torch.cat([bank_labels, query_labels]), return_inverse=True)
    voters, own = dense[: len(bank_labels)].cpu()[indices], dense[len(bank_labels) :].cpu()
    for name, weights in _settings(similarities, ks, temperatures, metric):
        predicted, top1, top5 = [], [], []
        for begin in range(0, len(own), TOGETHER):
            part = slice(begin, begin + TOGETHER)
            scores = sum_votes(weights[part], voters[part, : weights.shape[1]], len(values))
            predicted.append(scores.argmax(dim=1))
            top1.append(hits(scores, own[part]))
            top5.append(hits(scores, own[part], top=5))
        right = torch.cat(top1)
        low, high = bootstrap_interval(right)
        found.predictions[name] = values[torch.cat(predicted)].numpy()
        found.metrics |= {
            f"knn/{name}/top1": percent(right),
            f"knn/{name}/top5": percent(torch.cat(top5)),
            f"knn/{name}/mean_per_class": mean_per_class(right, own),
            f"knn/{name}/ci95_low": low,
            f"knn/{name}/ci95_high": high,
        }
    return found


def knn_accuracies(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    ks: Sequence[int],
    temperatures: Sequence[float],
    *,
    leave_out: Tensor | None = None,
) -> dict[str, float]:
    """Top-1 and top-5 alone, for those who watch a run."""
    found = knn_scores(bank, bank_labels, queries, query_labels, ks, temperatures, leave_out=leave_out)
    return {name: value for name, value in found.metrics.items() if name.endswith(("top1", "top5"))}


def sum_votes(weights: Tensor, labels: Tensor, classes: int) -> Tensor:
    """float64[Q, classes]: the sum of the weights[Q, k] of each class's voters, labels int64[Q, k]."""
    scores = torch.zeros(len(labels), classes, dtype=torch.float64, device=labels.device)
    return scores.scatter_add_(1, labels, weights)


def _settings(
    similarities: Tensor, ks: Sequence[int], temperatures: Sequence[float | None], metric: Metric
) -> Iterator[tuple[str, Tensor]]:
    """The name of each setting and the weights float64[Q, k] of the neighbours."""
    for k in ks:
        for temperature in temperatures:
            kind = "uniform" if temperature is None else f"T={temperature:g}"
            if metric == "euclidean":
                kind = "euclidean-uniform" if temperature is None else "euclidean"
            yield f"k={k}/{kind}", _weights(similarities[:, :k], temperature, metric)


def _weights(similarities: Tensor, temperature: float | None, metric: Metric) -> Tensor:
    if temperature is None:
        return torch.ones_like(similarities, dtype=torch.float64)
    if metric == "euclidean":
        return 1 / (1e-5 - similarities.double())
    return ((similarities - similarities[:, :1]).double() / temperature).exp()


def _label_scores(weights: Tensor, indices: Tensor, labels: Tensor) -> np.ndarray:
    """float64[Q, C]: the share of the weight of a query's neighbours that has each label, labels[N, C]."""
    shares = weights / weights.sum(dim=1, keepdim=True)
    parts = [
        torch.einsum("qk,qkc->qc", shares[part], labels[indices[part, : weights.shape[1]]].double())
        for part in torch.arange(len(indices)).split(256)
    ]
    return torch.cat(parts).numpy()
