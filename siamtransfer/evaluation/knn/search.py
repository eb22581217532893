"""Exact nearest neighbours of queries in a bank of any size, within a stated memory.

The bank is taken in chunks of rows, in memory or mapped from a file, and each query keeps its best so far; so
the result is that of a full sort with ties settled by index, whatever the chunks. A blocked matrix product
does the search; on a GPU FAISS does, where it is installed. (On the CPU the product was measured to be faster
than FAISS.) Queries whose neighbours float32 does not tell apart are searched again in float64.

Legend: N rows of D in the bank, Q queries, similarity: larger is nearer.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, exact_matmul
from siamtransfer.evaluation.knn.config import NeighbourMetric
from siamtransfer.metrics.unit_rows import largest_of_rows, unit_rows
from siamtransfer.utils.errors import UserError

BUDGET = 2 << 30  # bytes for chunks and similarities, beside what the caller holds

_BLOCK = 2**26  # similarities held at once; more does not make the product faster

CLOSE = 2.0**-20  # mean distance of neighbouring cosines: several times float32's rounding error of a cosine
CLOSE_EUCLIDEAN = 2.0**-12  # squared distance over squared lengths, where float32 leaves three digits
SAME = 2.0**-45  # range of similarities in float64 that is rounding alone: the neighbours are duplicates


@exact_matmul()
def search(
    bank: Tensor | np.ndarray,
    queries: Tensor,
    k: int,
    *,
    leave_out: Tensor | None = None,
    metric: NeighbourMetric = "cosine",
    budget: int = BUDGET,
) -> tuple[Tensor, Tensor]:
    """The k most similar rows of `bank`[N, D] for each of `queries`[Q, D], both of any floating-point type
    and of any scale.

    Returns (similarities [Q, k], indices int64[Q, k]), most similar first; equal similarities come in the
    order of their index. A similarity is the cosine, or minus the Euclidean distance. Similarities are
    float32; they are float64 where the neighbours of a query lie so close together that float32 does not
    tell them apart, and such queries are searched again in float64. `leave_out` int64[Q] names a row of the
    bank that is no neighbour of the query (itself, when the queries are the bank). A bank that is a mapped
    array is read once, a chunk at a time (twice where a query is searched again); the search runs where the
    queries are.

    Raises:
        UserError: k is larger than what the bank can give, or the bank holds values that are not finite.
    """
    available = len(bank) - (leave_out is not None)
    if not 1 <= k <= available:
        raise UserError(f"k={k} neighbours are too many: the bank has {available} rows, take a smaller --k")
    columns = min(k + 1, available)  # one more, whose distance tells whether the cut is certain
    if leave_out is not None:
        leave_out = leave_out.to(queries.device)
    similarities, indices = _search(bank, queries, columns, leave_out, metric, budget, torch.float32)
    close = _too_close(similarities, queries, metric).nonzero()[:, 0]
    if len(close):
        left_out = None if leave_out is None else leave_out[close]
        s, i = _search(bank, queries[close], columns, left_out, metric, budget, torch.float64)
        if not bool(torch.isfinite(s).all()):
            raise UserError("the features are too large for Euclidean distances: divide them by a constant")
        duplicates = (s[:, 0] - s[:, -1]).abs() <= SAME
        if not bool(duplicates.all()) or not torch.equal(i, indices[close]):
            similarities = similarities.double()
            similarities[close], indices[close] = s, i
    return similarities[:, :k], indices[:, :k]


def _search(
    bank: Tensor | np.ndarray,
    queries: Tensor,
    k: int,
    leave_out: Tensor | None,
    metric: NeighbourMetric,
    budget: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`search` with all arithmetic in `dtype`."""
    count = min(k + (leave_out is not None), len(bank))  # one more, where a row is left out afterwards
    device, double = queries.device, dtype == torch.float64
    shift = _centre(bank, device) if double and metric == "euclidean" else None
    queries = _prepared(queries, metric, dtype, shift)
    rows = min(len(bank), max(count, 1024, budget // (2 * (20 if double else 10) * bank.shape[1])))
    block = min(max(1, min(_BLOCK, budget // 16) // rows), max(len(queries), 1))
    best: list[tuple[Tensor, Tensor]] = []
    for begin in range(0, len(bank), rows):
        chunk = _prepared(_read(bank, begin, begin + rows, device), metric, dtype, shift)
        index = _faiss_gpu_index(chunk) if metric == "cosine" and not double else None
        # One buffer for all blocks: to allocate it each time costs a tenth of the search.
        buffer = queries.new_empty(0 if index else block * len(chunk))
        for number, query_block in enumerate(queries.split(block)):
            if index is None:
                s, i = _top(_similarities(chunk, query_block, metric, buffer), min(count, len(chunk)))
            else:
                s, i = index.search(query_block, min(count, len(chunk)))
            if begin == 0:
                best.append((s, i))
            else:
                best[number] = _merge(best[number], (s, i + begin), count)
        _release(bank)
    similarities, indices = (torch.cat(blocks) for blocks in zip(*best, strict=True))
    if leave_out is not None:
        return _without(similarities, indices, leave_out, k)
    return similarities, indices


def _too_close(similarities: Tensor, queries: Tensor, metric: NeighbourMetric) -> Tensor:
    """bool[Q]: whether rounding in float32 may decide which rows are the neighbours, or how near they are.

    `similarities` float32[Q, c] fall. They count as too close where the mean distance from one to the next is
    not several times the rounding error of a similarity.
    """
    columns = similarities.shape[1]
    if metric == "cosine":
        return (similarities[:, 0] - similarities[:, -1] < columns * CLOSE) & (columns > 1)
    first, last = (-similarities[:, c].double() for c in (0, -1))
    length = torch.linalg.vector_norm(queries.double(), dim=1)
    # The product's rounding error of a squared distance is a fraction of the squared lengths of both rows.
    near, far = (length**2 + (length + d) ** 2 for d in (first, last))
    close = (last**2 - first**2 < columns * CLOSE * far) & (columns > 1)
    return close | (first**2 <= CLOSE_EUCLIDEAN * near) | ~torch.isfinite(first) | ~torch.isfinite(last)


def _centre(bank: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """float64[D]: the mean of up to 1024 rows of the bank, evenly taken. Distances do not change when it is
    subtracted from both sides, and rounding errors become smaller."""
    rows = bank[:: max(1, len(bank) // 1024)]
    rows = torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows
    return rows.to(device).double().mean(dim=0)


def search_over_ranks(
    bank: Tensor | np.ndarray,
    queries: Tensor,
    k: int,
    *,
    leave_one_out: bool,
    metric: NeighbourMetric = "cosine",
    budget: int = BUDGET,
    runtime: Runtime,
) -> tuple[Tensor, Tensor]:
    """`search`, with the queries divided over the ranks; every rank returns the neighbours of all queries, on
    the CPU.

    With `leave_one_out` the queries are the rows of the bank, and a query is not its own neighbour.

    Raises:
        UserError: see `search`.
    """
    local = torch.arange(runtime.rank, len(queries), runtime.world_size)
    if isinstance(bank, Tensor):
        bank = bank.to(runtime.device)
    similarities, indices = search(
        bank,
        queries[local].to(runtime.device),
        k,
        leave_out=local.to(runtime.device) if leave_one_out else None,
        metric=metric,
        budget=budget,
    )
    total, device = len(queries), runtime.device
    doubles = torch.tensor([similarities.dtype == torch.float64], dtype=torch.float32, device=device)
    if collectives.all_reduce(doubles).item():  # one dtype on all ranks
        similarities = similarities.double()
    return (
        collectives.all_gather_rows(similarities, total, device),
        collectives.all_gather_rows(indices, total, device),
    )


def _read(bank: Tensor | np.ndarray, begin: int, end: int, device: torch.device) -> Tensor:
    rows = bank[begin:end]
    if isinstance(rows, np.ndarray):
        rows = torch.from_numpy(np.array(rows))  # a copy, for the array may be mapped and read-only
    return rows.to(device)


def _prepared(x: Tensor, metric: NeighbourMetric, dtype: torch.dtype, shift: Tensor | None) -> Tensor:
    """[n, D] of `dtype` whose inner products, or distances, are the similarities."""
    x = x if x.dtype == torch.float64 else x.float()
    largest = largest_of_rows(x)
    if not bool(torch.isfinite(largest).all()):
        raise UserError("the features hold values that are not finite: they have no neighbours")
    if metric == "cosine":
        return unit_rows(x, dtype, largest)
    return x.to(dtype) if shift is None else x.double() - shift


def _release(bank: Tensor | np.ndarray) -> None:
    """Frees the pages of a mapped array; they would count as this process's memory until it ends."""
    mapped = getattr(bank, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        with contextlib.suppress(ValueError, OSError):
            mapped.madvise(mmap.MADV_DONTNEED)


def _similarities(chunk: Tensor, queries: Tensor, metric: NeighbourMetric, buffer: Tensor) -> Tensor:
    """float32[n, rows of the chunk], in `buffer` if it is a product."""
    if metric == "euclidean":
        return torch.cdist(queries, chunk, compute_mode="use_mm_for_euclid_dist").neg_()
    out = buffer[: len(queries) * len(chunk)].view(len(queries), len(chunk))
    return torch.mm(queries, chunk.T, out=out)


def _top(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk, with ties settled by index: topk alone may return any of several equal entries.

    One more than k is searched; where it equals the last of the k, the cut goes through a tie, and such rows
    are sorted in full.
    """
    count = min(k + 1, similarities.shape[1])
    s, i = similarities.topk(count, dim=1)
    if count > k:
        ambiguous = (s[:, k] == s[:, k - 1]).nonzero()[:, 0]
        s, i = s[:, :k], i[:, :k]
        if len(ambiguous):
            order = similarities[ambiguous].sort(dim=1, descending=True, stable=True)
            s[ambiguous], i[ambiguous] = order.values[:, :k], order.indices[:, :k]
    return _by_index_within_ties(s, i)


def _by_index_within_ties(s: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    """Sorts rows of falling similarities so that indices rise where similarities are equal."""
    equal = (s[:, 1:] == s[:, :-1]).any(dim=1).nonzero()[:, 0]
    if len(equal):
        by_index = i[equal].argsort(dim=1)
        tied_s, tied_i = s[equal].gather(1, by_index), i[equal].gather(1, by_index)
        order = tied_s.sort(dim=1, descending=True, stable=True)
        s[equal], i[equal] = order.values, tied_i.gather(1, order.indices)
    return s, i


def _merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k best of two results, of which the second has the larger indices."""
    s, i = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    order = s.sort(dim=1, descending=True, stable=True)
    return order.values[:, :k], i.gather(1, order.indices[:, :k])


def _without(s: Tensor, i: Tensor, left_out: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Drops each row's `left_out` index, or its last column where that index is not among the neighbours."""
    hit = i == left_out[:, None]
    hit[:, -1] |= ~hit.any(dim=1)
    keep = (~hit).nonzero()[:, 1].view(len(i), -1)[:, :k]
    return s.gather(1, keep), i.gather(1, keep)


def _faiss_gpu_index(chunk: Tensor) -> _FaissIndex | None:
    """A FAISS index on the chunk's GPU, or None for the matrix product (no GPU, or no faiss-gpu)."""
    if chunk.device.type != "cuda":
        return None
    try:
        import faiss
        import faiss.contrib.torch_utils
    except ImportError:
        return None
    if not hasattr(faiss, "StandardGpuResources"):
        return None
    return _FaissIndex(faiss, chunk)


class _FaissIndex:
    """Inner-product search of unit rows on one GPU."""

    def __init__(self, faiss: Any, chunk: Tensor):
        self._resources = faiss.StandardGpuResources()
        options = faiss.GpuIndexFlatConfig()
        options.device = chunk.device.index or 0
        self._chunk = chunk
        self._index = faiss.GpuIndexFlatIP(self._resources, chunk.shape[1], options)
        self._index.add(chunk.contiguous())

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Like `_top`; a tie at the cut is settled by the product, because FAISS may return any of the equal
        rows."""
        count = min(k + 1, len(self._chunk))
        s, i = self._index.search(queries.contiguous(), count)
        cut = (s[:, -1] == s[:, k - 1]).nonzero()[:, 0] if count > k else []
        s, i = s[:, :k].clone(), i[:, :k].clone()
        if len(cut):
            s[cut], i[cut] = _top(queries[cut] @ self._chunk.T, k)
        return _by_index_within_ties(s, i)
