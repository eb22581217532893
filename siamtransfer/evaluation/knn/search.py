"""Exact nearest neighbours of queries in a bank of any size, within a stated memory.

The bank is taken in chunks of rows, in memory or mapped from a file, and each query keeps its best so far; so
the result is that of a full sort with ties settled by index, whatever the chunks. A blocked matrix product
does the search; on a GPU FAISS does, where it is installed. (On the CPU the product was measured to be faster
than FAISS.) Queries whose neighbours float32 does not tell apart are searched again in float64. With several
ranks each holds a share of the bank and searches it for all queries.

Legend: N rows of D in the bank, Q queries, similarity: larger is nearer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, exact_matmul
from siamtransfer.evaluation.knn.config import NeighbourMetric
from siamtransfer.evaluation.knn.searchers import (
    BUDGET,
    LocalSearch,
    Search,
    SearchOptions,
    ShardedSearch,
    as_numbers,
)
from siamtransfer.evaluation.knn.top import Neighbours, without
from siamtransfer.metrics.unit_rows import unit_half_rows
from siamtransfer.utils.errors import UserError

QUERY_BYTES = 2**30  # of queries that are on the device at once, in float32
GATHERED_BYTES = 2**26  # the same with several ranks, each of which sends its part

CLOSE = 2.0**-20  # mean distance of neighbouring cosines: several times float32's rounding error of a cosine
CLOSE_EUCLIDEAN = 2.0**-12  # squared distance over squared lengths, where float32 leaves three digits
SAME = 2.0**-45  # range of similarities in float64 that is rounding alone: the neighbours are duplicates


def search(
    bank: Tensor | np.ndarray,
    queries: Tensor,
    k: int,
    *,
    leave_out: Tensor | None = None,
    metric: NeighbourMetric = "cosine",
    budget: int = BUDGET,
) -> Neighbours:
    """The k most similar rows of `bank`[N, D] for each of `queries`[Q, D], both of any floating-point type
    and of any scale (or uint8 pixels, which stand for their 255th part).

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
    return nearest(LocalSearch(bank, SearchOptions(metric, budget)), queries, k, leave_out)


@exact_matmul()
def nearest(bank: Search, queries: Tensor, k: int, leave_out: Tensor | None = None) -> Neighbours:
    """`search` in rows that may be anywhere; see there."""
    available = bank.length - (leave_out is not None)
    if not 1 <= k <= available:
        raise UserError(f"k={k} neighbours are too many: the bank has {available} rows, take a smaller --k")
    queries = as_numbers(queries)
    columns = min(k + 1, available)  # one more, whose distance tells whether the cut is certain
    if leave_out is not None:
        leave_out = leave_out.to(queries.device)
    similarities, indices = _find(bank, queries, columns, leave_out, torch.float32)
    close = bank.agree(_too_close(similarities, queries, bank.options.metric)).nonzero()[:, 0]
    if len(close):
        left_out = None if leave_out is None else leave_out[close]
        s, i = _find(bank, queries[close], columns, left_out, torch.float64)
        if not bool(torch.isfinite(s).all()):
            raise UserError("the features are too large for Euclidean distances: divide them by a constant")
        duplicates = (s[:, 0] - s[:, -1]).abs() <= SAME
        if not bool(duplicates.all()) or not torch.equal(i, indices[close]):
            similarities = similarities.double()
            similarities[close], indices[close] = s, i
    return similarities[:, :k], indices[:, :k]


def search_over_ranks(
    bank: Tensor | np.ndarray,
    queries: Tensor,
    k: int,
    *,
    leave_one_out: bool,
    options: SearchOptions,
    half: bool = False,
    runtime: Runtime,
) -> Neighbours:
    """`search_shares` of a bank [N, D] and queries [Q, D] that every rank has, in memory or mapped.

    With `leave_one_out` the queries are the rows of the bank, and a query is not its own neighbour. With
    `half` each rank's share of the bank is scaled to rows of length one and rounded to float16.

    Raises:
        UserError: see `search`.
    """
    mine = slice(runtime.rank, None, runtime.world_size)
    return search_shares(
        _half(bank[mine]) if half else bank[mine],
        queries[mine],
        k,
        sizes=(len(bank), len(queries)),
        leave_one_out=leave_one_out,
        options=options,
        runtime=runtime,
    )


def search_shares(
    bank: Tensor | np.ndarray,
    queries: Tensor,
    k: int,
    *,
    sizes: tuple[int, int],
    leave_one_out: bool,
    options: SearchOptions,
    runtime: Runtime,
) -> Neighbours:
    """The neighbours of all Q queries in a bank of N rows, on every rank and on the CPU; `sizes` is (N, Q).

    Rank r holds the rows r, r + world_size, … of both (`bank` and `queries`, on the CPU or mapped). All ranks
    get the queries block by block, and give back the nearest in their share of the bank. So a rank never has
    more than its shares, a block and the result.

    Raises:
        UserError: see `search`.
    """
    (rows, total), device, world_size = sizes, runtime.device, runtime.world_size
    row_bytes = 4 * max(1, queries.shape[1])
    found: list[Neighbours] = []
    searcher: Search
    if world_size == 1:
        searcher, step = LocalSearch(bank, options), max(1, QUERY_BYTES // row_bytes)
    else:
        searcher = ShardedSearch(bank, rows, options, device)
        step = max(1, GATHERED_BYTES // row_bytes // world_size) * world_size
    for begin in range(0, total, step):
        end = min(begin + step, total)
        share = queries[begin // world_size : -(-end // world_size)]
        block = collectives.all_gather_rows(share, end - begin, device, keep_on_device=True)
        left_out = torch.arange(begin, end, device=device) if leave_one_out else None
        s, i = nearest(searcher, block, k, left_out)
        found.append((s.cpu(), i.cpu()))
    double = any(s.dtype == torch.float64 for s, _ in found)
    similarities = torch.cat([s.double() if double else s for s, _ in found])
    return similarities, torch.cat([i for _, i in found])


def _half(rows: Tensor | np.ndarray) -> Tensor:
    """`unit_half_rows` in memory, of rows that may be mapped."""
    halves = torch.empty(*rows.shape, dtype=torch.float16)
    for begin in range(0, len(rows), 4096):
        block = rows[begin : begin + 4096]
        block = torch.from_numpy(np.array(block)) if isinstance(block, np.ndarray) else block
        halves[begin : begin + 4096] = unit_half_rows(block)
    return halves


def _find(bank: Search, queries: Tensor, k: int, leave_out: Tensor | None, dtype: torch.dtype) -> Neighbours:
    """The k nearest rows but the one that is left out."""
    count = min(k + (leave_out is not None), bank.length)  # one more, where a row is left out afterwards
    similarities, indices = bank.find(queries, count, dtype)
    if leave_out is not None:
        return without(similarities, indices, leave_out, k)
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
