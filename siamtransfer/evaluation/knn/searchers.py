"""Where the rows of a bank are, and how their nearest to some queries are found there, in a given arithmetic.

LocalSearch    rows of this process, taken in chunks within a stated memory
ShardedSearch  rows divided over the ranks; each searches its own for all queries, and the best are merged

Legend: N rows of D in the bank, n queries, similarity: larger is nearer.
"""

from __future__ import annotations

import contextlib
import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed import collectives
from siamtransfer.evaluation.knn.config import NeighbourMetric, SearchBackend
from siamtransfer.evaluation.knn.faiss_search import FaissSearch, open_faiss
from siamtransfer.evaluation.knn.top import Neighbours, merge, merge_any_order, top
from siamtransfer.metrics.unit_rows import largest_of_rows, unit_rows
from siamtransfer.utils.errors import UserError

BUDGET = 2 << 30  # bytes for chunks and similarities, beside what the caller holds

_BLOCK = 2**26  # similarities held at once; more does not make the product faster


@dataclass(frozen=True)
class SearchOptions:
    """How neighbours are searched.

    Attributes:
        budget: bytes for chunks of the bank and for similarities.
        backend: auto is FAISS on a GPU, where it is installed, and the matrix product elsewhere.
        faiss_devices: GPUs that share the bank by FAISS in one process.
        between_chunks: called before every product of a chunk and a block of queries (with several ranks,
            before every block of queries, as often on every rank). What it raises ends the search.
    """

    metric: NeighbourMetric = "cosine"
    budget: int = BUDGET
    backend: SearchBackend = "auto"
    faiss_devices: int = 1
    between_chunks: Callable[[], None] | None = None


class Search(ABC):
    """A bank of `length` rows."""

    length: int
    options: SearchOptions

    @abstractmethod
    def find(self, queries: Tensor, k: int, dtype: torch.dtype) -> Neighbours:
        """The k <= N nearest rows of queries[n, D], on their device, all arithmetic in `dtype`."""

    def agree(self, decision: Tensor) -> Tensor:
        """A decision that all who search together have to take alike."""
        return decision


class LocalSearch(Search):
    """The bank `rows`[N, D], of any floating-point type or uint8 pixels (which stand for their 255th part),
    in memory or mapped from a file; a chunk at a time goes to the queries' device.

    `centre` float64[D] is near the rows' mean; None: see `centre_of`.
    """

    def __init__(self, rows: Tensor | np.ndarray, options: SearchOptions, centre: Tensor | None = None):
        self.rows, self.options, self.length, self._centre = rows, options, len(rows), centre

    def find(self, queries: Tensor, k: int, dtype: torch.dtype) -> Neighbours:
        metric, bank = self.options.metric, self.rows
        device, double = queries.device, dtype == torch.float64
        shift = None
        if double and metric == "euclidean":
            shift = centre_of(bank, device) if self._centre is None else self._centre
        queries = _prepared(queries, metric, dtype, shift)
        rows = self._rows_of_a_chunk(k, double)
        block = min(max(1, min(_BLOCK, self.options.budget // 16) // rows), max(len(queries), 1))
        best: list[Neighbours] = []
        for begin in range(0, len(bank), rows):
            chunk = _Chunk(
                _prepared(_read(bank, begin, begin + rows, device), metric, dtype, shift), self.options
            )
            for number, query_block in enumerate(queries.split(block)):
                if self.options.between_chunks:
                    self.options.between_chunks()
                s, i = chunk.nearest(query_block, min(k, len(chunk.rows)), block)
                if begin == 0:
                    best.append((s, i))
                else:
                    best[number] = merge([best[number], (s, i + begin)], k)
            _release(bank)
        similarities, indices = (torch.cat(blocks) for blocks in zip(*best, strict=True))
        return similarities, indices

    def _rows_of_a_chunk(self, k: int, double: bool) -> int:
        bytes_of_a_number = (
            20 if double else 10
        )  # as read, in the arithmetic's type, and what is made of them
        return min(
            self.length,
            max(k, 1024, self.options.budget // (2 * bytes_of_a_number * self.rows.shape[1])),
        )


class ShardedSearch(Search):
    """A bank of `length` rows, of which each rank holds every world_size-th: rank r its rows r, r +
    world_size, …

    All ranks search the same queries at the same time. The neighbours are those of the whole bank, on every
    rank; a similarity may differ from that of the whole bank by the rounding of a matrix product, whose last
    bit depends on its shape.
    """

    def __init__(self, share: Tensor | np.ndarray, length: int, options: SearchOptions, device: torch.device):
        centre = None
        if options.metric == "euclidean":
            centre = collectives.all_reduce_mean(centre_of(share, device))
        self.length, self.options = length, options
        self._local = LocalSearch(share, _without_hook(options), centre)

    def find(self, queries: Tensor, k: int, dtype: torch.dtype) -> Neighbours:
        if self.options.between_chunks:
            self.options.between_chunks()
        world_size, rank = collectives.world_size(), collectives.rank()
        most = min(k, -(-self.length // world_size))  # neighbours that a rank has, at most
        s = queries.new_full((len(queries), most), -torch.inf, dtype=dtype)
        i = torch.full((len(queries), most), self.length, device=queries.device)
        with collectives.raise_together():
            count = min(most, self._local.length)
            if count:
                found = self._local.find(queries, count, dtype)
                s[:, :count], i[:, :count] = found[0], found[1] * world_size + rank
        parts_s, parts_i = (collectives.all_gather(part).chunk(world_size) for part in (s, i))
        return merge_any_order(torch.cat(parts_s, dim=1), torch.cat(parts_i, dim=1), k)

    def agree(self, decision: Tensor) -> Tensor:
        return collectives.broadcast(decision)


class _Chunk:
    """Prepared rows [n, D] of a bank on the device, and the memory for their similarities."""

    def __init__(self, rows: Tensor, options: SearchOptions):
        self.rows, self._metric = rows, options.metric
        self._buffer: Tensor | None = None
        self._faiss: FaissSearch | None = None
        if options.metric == "cosine" and rows.dtype == torch.float32:
            self._faiss = open_faiss(rows, options.backend, options.faiss_devices)

    def nearest(self, queries: Tensor, k: int, block: int) -> Neighbours:
        """The k nearest rows of at most `block` queries."""
        found = None
        if self._faiss is not None:
            found = self._faiss.search(queries, k)
            if found is None:
                self._faiss = None
        return top(self._similarities(queries, block), k) if found is None else found

    def _similarities(self, queries: Tensor, block: int) -> Tensor:
        """[queries, rows of the chunk]; a product is in one buffer for all blocks, because allocating it each
        time costs a tenth of the search."""
        if self._metric == "euclidean":
            return torch.cdist(queries, self.rows, compute_mode="use_mm_for_euclid_dist").neg_()
        if self._buffer is None:
            self._buffer = queries.new_empty(block * len(self.rows))
        out = self._buffer[: len(queries) * len(self.rows)].view(len(queries), len(self.rows))
        return torch.mm(queries, self.rows.T, out=out)


def centre_of(bank: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """float64[D]: the mean of up to 1024 rows of the bank, evenly taken. Distances do not change when it is
    subtracted from both sides, and rounding errors become smaller."""
    rows = bank[:: max(1, len(bank) // 1024)]
    rows = torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows
    rows = as_numbers(rows.to(device)).double()
    return rows.mean(dim=0) if len(rows) else rows.new_zeros(rows.shape[1])


def _without_hook(options: SearchOptions) -> SearchOptions:
    """The same without `between_chunks`: a rank's chunks are not as many as another's."""
    return SearchOptions(options.metric, options.budget, options.backend, options.faiss_devices)


def _read(bank: Tensor | np.ndarray, begin: int, end: int, device: torch.device) -> Tensor:
    rows = bank[begin:end]
    if isinstance(rows, np.ndarray):
        rows = torch.from_numpy(np.array(rows))  # a copy, for the array may be mapped and read-only
    return rows.to(device)


def as_numbers(x: Tensor) -> Tensor:
    """x in float32, or float64 where it is; pixels from 0 to 1."""
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x if x.dtype == torch.float64 else x.float()


def _prepared(x: Tensor, metric: NeighbourMetric, dtype: torch.dtype, shift: Tensor | None) -> Tensor:
    """[n, D] of `dtype` whose inner products, or distances, are the similarities."""
    x = as_numbers(x)
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
