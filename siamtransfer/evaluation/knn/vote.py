"""The label of a query by its neighbours: the weighted vote of Wu et al. (2018), and how often it is right.

Legend: Q queries, k neighbours, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from siamtransfer.evaluation.knn.config import NeighbourMetric
from siamtransfer.evaluation.knn.search import search
from siamtransfer.metrics.accuracy import bootstrap_interval, hits, mean_per_class, percent_correct
from siamtransfer.metrics.average_precision import mean_average_precision, steps

QUERIES_PER_CHUNK = 4096  # whose class scores are held at once


@dataclass
class KnnScores:
    """Numbers by name, and per setting (`k=20/T=0.07`) what was predicted: int64[Q] labels, with the share
    float32[Q] of the votes for them, or float64[Q, C] scores where labels are multi-hot."""

    metrics: dict[str, float] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    confidences: dict[str, np.ndarray] = field(default_factory=dict)


def knn_scores(
    bank: Tensor | np.ndarray,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    ks: Sequence[int],
    temperatures: Sequence[float | None],
    *,
    leave_out: Tensor | None = None,
    metric: NeighbourMetric = "cosine",
) -> KnnScores:
    """kNN for every k and temperature (None: each neighbour counts alike) from one search at the largest
    k."""
    similarities, indices = search(bank, queries, max(ks), leave_out=leave_out, metric=metric)
    return score_neighbours(similarities, indices, bank_labels, query_labels, ks, temperatures, metric=metric)


def score_neighbours(
    similarities: Tensor,
    indices: Tensor,
    bank_labels: Tensor,
    query_labels: Tensor,
    ks: Sequence[int],
    temperatures: Sequence[float | None],
    *,
    metric: NeighbourMetric = "cosine",
) -> KnnScores:
    """Scores the result of `search`. Labels are any integers [N] and [Q], or 0 and 1 for each class, [N, C]
    and [Q, C].

    Names are `knn/k=20/T=0.07/top1`, with `top5`, `mean_per_class` and the bootstrap's 95 % interval
    `ci95_low` to `ci95_high` of top1; `knn/…/mAP` for labels per class. Euclidean votes weigh 1 / (distance +
    1e-5).
    """
    similarities, indices = similarities.cpu(), indices.cpu()
    result = KnnScores()
    if bank_labels.ndim == 2:
        for name, weights in _settings(similarities, ks, temperatures, metric):
            scores = _label_scores(weights, indices, bank_labels)
            result.predictions[name] = scores
            result.metrics[f"knn/{name}/mAP"] = mean_average_precision(
                scores, query_labels.numpy(), rule=steps
            )
        return result
    values, classes = torch.unique(torch.cat([bank_labels, query_labels]), return_inverse=True)
    voters, targets = classes[: len(bank_labels)].cpu()[indices], classes[len(bank_labels) :].cpu()
    for name, weights in _settings(similarities, ks, temperatures, metric):
        predicted, share, top1, top5 = _predict(weights, voters[:, : weights.shape[1]], targets, len(values))
        low, high = bootstrap_interval(top1)
        result.predictions[name], result.confidences[name] = values[predicted].numpy(), share.numpy()
        result.metrics |= {
            f"knn/{name}/top1": percent_correct(top1),
            f"knn/{name}/top5": percent_correct(top5),
            f"knn/{name}/mean_per_class": mean_per_class(top1, targets),
            f"knn/{name}/ci95_low": low,
            f"knn/{name}/ci95_high": high,
        }
    return result


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
    """Top-1 and top-5 alone."""
    similarities, indices = search(bank, queries, max(ks), leave_out=leave_out)
    return top_accuracies(similarities, indices, bank_labels, query_labels, ks, temperatures)


def top_accuracies(
    similarities: Tensor,
    indices: Tensor,
    bank_labels: Tensor,
    query_labels: Tensor,
    ks: Sequence[int],
    temperatures: Sequence[float],
) -> dict[str, float]:
    """Top-1 and top-5 of the result of `search` by cosine, for the monitor of a run."""
    metrics = score_neighbours(similarities, indices, bank_labels, query_labels, ks, temperatures).metrics
    return {name: value for name, value in metrics.items() if name.endswith(("top1", "top5"))}


def sum_votes(weights: Tensor, labels: Tensor, classes: int) -> Tensor:
    """float64[Q, classes]: the sum of the weights[Q, k] of each class's voters, labels int64[Q, k]."""
    scores = torch.zeros(len(labels), classes, dtype=torch.float64, device=labels.device)
    return scores.scatter_add_(1, labels, weights)


def _predict(
    weights: Tensor, voters: Tensor, targets: Tensor, classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of weights[Q, k] and the classes int64[Q, k] of the voters: the predicted class int64[Q], its share
    float32[Q] of the votes, and whether the target int64[Q] is the best, or among the five best, bool[Q]
    each."""
    predicted, shares, top1, top5 = [], [], [], []
    for begin in range(0, len(targets), QUERIES_PER_CHUNK):
        chunk = slice(begin, begin + QUERIES_PER_CHUNK)
        scores = sum_votes(weights[chunk], voters[chunk], classes)
        best = scores.argmax(dim=1)
        predicted.append(best)
        shares.append((scores.gather(1, best[:, None])[:, 0] / scores.sum(dim=1)).float())
        top1.append(hits(scores, targets[chunk]))
        top5.append(hits(scores, targets[chunk], top=5))
    return torch.cat(predicted), torch.cat(shares), torch.cat(top1), torch.cat(top5)


def _settings(
    similarities: Tensor, ks: Sequence[int], temperatures: Sequence[float | None], metric: NeighbourMetric
) -> Iterator[tuple[str, Tensor]]:
    """The name of each setting and the weights float64[Q, k] of the neighbours."""
    for k in ks:
        for temperature in temperatures:
            kind = "uniform" if temperature is None else f"T={temperature:g}"
            if metric == "euclidean":
                kind = "euclidean-uniform" if temperature is None else "euclidean"
            yield f"k={k}/{kind}", vote_weights(similarities[:, :k], temperature, metric)


def vote_weights(
    similarities: Tensor, temperature: float | None, metric: NeighbourMetric = "cosine"
) -> Tensor:
    """float64[Q, k]: what the vote of each neighbour weighs, by similarities[Q, k] that fall; without a
    temperature 1."""
    if temperature is None:
        return torch.ones_like(similarities, dtype=torch.float64)
    if metric == "euclidean":
        return 1 / (1e-5 - similarities.double())
    return ((similarities - similarities[:, :1]).double() / temperature).exp()


def _label_scores(weights: Tensor, indices: Tensor, labels: Tensor) -> np.ndarray:
    """float64[Q, C]: the fraction of the weight of a query's neighbours that has each label, labels[N, C]."""
    fractions = weights / weights.sum(dim=1, keepdim=True)
    chunks = [
        torch.einsum("qk,qkc->qc", fractions[rows], labels[indices[rows, : weights.shape[1]]].double())
        for rows in torch.arange(len(indices)).split(256)
    ]
    return torch.cat(chunks).numpy()
