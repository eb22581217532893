"""Exact nearest neighbours and the vote among them (Wu et al. 2018).

FAISS does the search on a GPU where it is installed, a blocked matrix product everywhere else; both are
exact. Similarities are cosines: rows are scaled to unit length first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.errors import UserError

_BLOCK = 2**24  # similarities held at once: 64 MiB in float32


def search(
    bank: Tensor, queries: Tensor, k: int, *, leave_out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k most similar rows of `bank`[N, D] for each of `queries`[Q, D].

    Returns (similarities float32[Q, k], indices int64[Q, k]), most similar first; equal similarities come
    in the order of their index. `leave_out` int64[Q] names a bank row that each query must not find
    (itself, when the queries are the bank).

    Raises:
        UserError: k is larger than what the bank can give.
    """
    available = len(bank) - (leave_out is not None)
    if not 1 <= k <= available:
        raise UserError(f"k={k} neighbours were asked for and the bank has {available}: choose a smaller --k")
    bank, queries = F.normalize(bank.float(), dim=1), F.normalize(queries.float(), dim=1)
    wanted = min(k + (leave_out is not None), len(bank))
    index = _faiss_gpu_index(bank)
    block = len(queries) if index is not None else max(1, _BLOCK // len(bank))
    similarities, neighbours = [], []
    for begin in range(0, len(queries), max(block, 1)):
        part = queries[begin : begin + block]
        s, i = index.search(part, wanted) if index is not None else _top(part @ bank.T, wanted)
        if leave_out is not None:
            s, i = _without(s, i, leave_out[begin : begin + block].to(i.device), k)
        similarities.append(s)
        neighbours.append(i)
    return torch.cat(similarities), torch.cat(neighbours)


def vote(similarities: Tensor, labels: Tensor, *, temperature: float | None, classes: int) -> Tensor:
    """Class scores float64[Q, classes] from the `labels` int64[Q, k] of each query's neighbours.

    A neighbour adds exp(similarity / temperature) to its class, or 1 when `temperature` is None. Weights are
    relative to the nearest neighbour's, which changes no ranking and cannot overflow.
    """
    if temperature is None:
        weights = torch.ones_like(similarities, dtype=torch.float64)
    else:
        weights = ((similarities - similarities[:, :1]).double() / temperature).exp()
    scores = torch.zeros(len(labels), classes, dtype=torch.float64, device=labels.device)
    return scores.scatter_add_(1, labels, weights)


def accuracy(scores: Tensor, labels: Tensor, top: int = 1) -> float:
    """Percentage of rows of `scores`[Q, C] whose label int64[Q] is among the `top` best classes.

    A class without any vote never counts as a hit, and of equal scores the smaller class number wins.
    """
    own = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    better = (scores > own) | ((scores == own) & (classes < labels[:, None]))
    return 100 * float(((better.sum(dim=1) < top) & (own[:, 0] > 0)).double().mean())


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
    """kNN top-1 and top-5 for every k and temperature from one search at the largest k.

    Names are `knn/k=20/T=0.07/top1`; labels may be any integers.
    """
    values, dense = torch.unique(torch.cat([bank_labels, query_labels]), return_inverse=True)
    bank_classes, query_classes = dense[: len(bank_labels)], dense[len(bank_labels) :]
    similarities, indices = search(bank, queries, max(ks), leave_out=leave_out)
    similarities, indices = similarities.cpu(), indices.cpu()
    neighbour_classes, query_classes = bank_classes.cpu()[indices], query_classes.cpu()
    metrics = {}
    for k in ks:
        for temperature in temperatures:
            scores = vote(
                similarities[:, :k], neighbour_classes[:, :k], temperature=temperature, classes=len(values)
            )
            name = f"knn/k={k}/T={temperature:g}"
            metrics[f"{name}/top1"] = accuracy(scores, query_classes)
            metrics[f"{name}/top5"] = accuracy(scores, query_classes, top=5)
    return metrics


def _top(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk, with ties settled by index: topk alone may return any of several equal entries."""
    s, i = similarities.topk(k, dim=1)
    last = s[:, -1:]
    ambiguous = (similarities >= last).sum(dim=1) > k
    if bool(ambiguous.any()):
        rows = ambiguous.nonzero()[:, 0]
        order = similarities[rows].sort(dim=1, descending=True, stable=True)
        s[rows], i[rows] = order.values[:, :k], order.indices[:, :k]
    return _by_index_within_ties(s, i)


def _by_index_within_ties(s: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    """Sorts rows by falling similarity and, where equal, rising index."""
    by_index = i.argsort(dim=1)
    s, i = s.gather(1, by_index), i.gather(1, by_index)
    order = s.sort(dim=1, descending=True, stable=True)
    return order.values, i.gather(1, order.indices)


def _without(s: Tensor, i: Tensor, unwanted: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Drops each row's `unwanted` index, or its last column where that index was not found."""
    hit = i == unwanted[:, None]
    hit[:, -1] |= ~hit.any(dim=1)
    keep = (~hit).nonzero()[:, 1].view(len(i), -1)[:, :k]
    return s.gather(1, keep), i.gather(1, keep)


def _faiss_gpu_index(bank: Tensor) -> _FaissIndex | None:
    """A FAISS index on the bank's GPU, or None for the matrix product (no GPU, or faiss-gpu not there)."""
    if bank.device.type != "cuda":
        return None
    try:
        import faiss
        import faiss.contrib.torch_utils
    except ImportError:
        return None
    if not hasattr(faiss, "StandardGpuResources"):
        return None
    return _FaissIndex(faiss, bank)


class _FaissIndex:
    """Inner-product search of unit rows on one GPU."""

    def __init__(self, faiss: Any, bank: Tensor):
        self._resources = faiss.StandardGpuResources()
        options = faiss.GpuIndexFlatConfig()
        options.device = bank.device.index or 0
        self._index = faiss.GpuIndexFlatIP(self._resources, bank.shape[1], options)
        self._index.add(bank.contiguous())

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        s, i = self._index.search(queries.contiguous(), k)
        return _by_index_within_ties(s, i)
