"""Inner-product search by FAISS's flat indexes, on GPUs or on the CPU, with the ties of `top`.

FAISS allocates from resources of its own, of which a process has one, with temporary memory of a fixed size.
What FAISS cannot do (more neighbours than its GPU kernels select, more memory than there is) is left to the
matrix product, with a remark: `FaissSearch.search` returns None then.

FAISS's flat indexes: https://github.com/facebookresearch/faiss/wiki/Faiss-on-the-GPU
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from siamtransfer.evaluation.knn.config import SearchBackend
from siamtransfer.evaluation.knn.top import Neighbours, by_index_within_ties, merge, top
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

GPU_NEIGHBOURS = 2048  # the most that FAISS's GPU kernels select for a query
TEMPORARY_BYTES = 256 << 20  # on each GPU; FAISS's own choice is up to 1.5 GiB
_OUT_OF_MEMORY = ("out of memory", "cudaMalloc", "bad_alloc")  # in the texts of FAISS's errors
_REMARKED: set[str] = set()  # what was said in this process


class _Index(Protocol):
    """The part of a FAISS index that is used, after `faiss.contrib.torch_utils` was imported."""

    def add(self, x: Tensor) -> None: ...

    def search(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class _Part:
    """The rows from `first` on, on one device."""

    first: int
    rows: int
    device: torch.device
    index: _Index


class FaissSearch:
    """The nearest of `rows` float32[N, D], unit vectors, by their inner products.

    `devices` hold a part of the rows each, in their order. `most` is the largest number of neighbours that
    FAISS gives there.

    Raises:
        MemoryError: a device has no room for its part.
    """

    def __init__(self, faiss: ModuleType, rows: Tensor, devices: Sequence[torch.device], most: int):
        self._rows, self._most = rows, most
        self._parts: list[_Part] = []
        first = 0
        for part, device in zip(rows.tensor_split(len(devices)), devices, strict=True):
            if len(part):
                index = _empty_index(faiss, rows.shape[1], device)
                with _MemoryErrors(), _current(device):
                    index.add(part.to(device).contiguous())
                self._parts.append(_Part(first, len(part), device, index))
            first += len(part)

    def search(self, queries: Tensor, k: int) -> Neighbours | None:
        """Like `top` of queries[n, D] @ rows.T; None where FAISS cannot do it.

        A tie at the cut is settled by the product, because FAISS may return any of the equal rows.
        """
        count = min(k + 1, len(self._rows))
        if count > self._most:
            _remark(f"FAISS gives at most {self._most} neighbours on a GPU: the matrix product searches {k}")
            return None
        try:
            with _MemoryErrors():
                s, i = merge(self._search_parts(queries.contiguous(), count), count)
        except MemoryError:
            remark_on_memory()
            return None
        tied = s[:, -1] == s[:, k - 1]
        s, i = s[:, :k].clone(), i[:, :k].clone()
        if count > k and bool(tied.any()):
            s[tied], i[tied] = top(queries[tied] @ self._rows.T, k)
        return by_index_within_ties(s, i)

    def _search_parts(self, queries: Tensor, count: int) -> list[Neighbours]:
        """The nearest rows in each part; all devices are at work before the first result is fetched."""
        found = []
        for part in self._parts:
            with _current(part.device):
                found.append(part.index.search(queries.to(part.device), min(count, part.rows)))
        return [
            (s.to(queries.device), i.to(queries.device) + part.first)
            for part, (s, i) in zip(self._parts, found, strict=True)
        ]


def open_faiss(rows: Tensor, backend: SearchBackend, devices: int) -> FaissSearch | None:
    """FAISS on the device of `rows` and, of a GPU, on the `devices` - 1 after it; None where the matrix
    product is to search: FAISS is not installed, was not asked for on the CPU, or has no room.

    Raises:
        UserError: FAISS was asked for and is not installed for this device, or there are fewer GPUs.
    """
    if backend == "product" or (backend == "auto" and rows.device.type != "cuda"):
        _require_one_device(devices)
        return None
    faiss = _import_faiss()
    on_gpu = rows.device.type == "cuda"
    if faiss is None or (on_gpu and not hasattr(faiss, "StandardGpuResources")):
        if backend == "auto":
            _require_one_device(devices)
            return None
        extra = "gpu" if on_gpu else "cpu"
        raise UserError(f"--backend faiss needs faiss-{extra}: pip install 'siamtransfer[{extra}]'")
    try:
        return FaissSearch(
            faiss, rows, choose_devices(rows.device, devices), GPU_NEIGHBOURS if on_gpu else len(rows)
        )
    except MemoryError:
        remark_on_memory()
        return None


def choose_devices(first: torch.device, count: int) -> list[torch.device]:
    """`first` and the `count` - 1 GPUs after it; of the CPU, as many parts.

    Raises:
        UserError: there are fewer GPUs.
    """
    if first.type != "cuda":
        return [first] * count
    index = first.index or 0
    if index + count > torch.cuda.device_count():
        raise UserError(
            f"--faiss-devices {count}: there are {torch.cuda.device_count() - index} GPUs from {first} on"
        )
    return [torch.device("cuda", index + n) for n in range(count)]


def _require_one_device(devices: int) -> None:
    if devices > 1:
        raise UserError(
            f"--faiss-devices {devices} needs FAISS, and the matrix product searches: leave it out"
        )


def _current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Makes a GPU the current one, on whose stream FAISS then works."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def remark_on_memory() -> None:
    """Says, once in a process, that FAISS had too little memory."""
    _remark(
        "FAISS has too little memory: the matrix product searches instead (a smaller --memory-budget helps)"
    )


def _remark(text: str) -> None:
    if text not in _REMARKED:
        _REMARKED.add(text)
        say(text)


class _MemoryErrors:
    """Turns FAISS's and torch's errors for want of memory into MemoryError."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY):
            raise MemoryError(str(error)) from error


def _import_faiss() -> ModuleType | None:
    try:
        import faiss
        import faiss.contrib.torch_utils  # indexes take tensors, on the stream that torch uses
    except ImportError:
        return None
    module: ModuleType = faiss
    return module


@functools.cache
def _gpu_resources(faiss: ModuleType) -> object:
    """FAISS's streams and temporary memory, the same for all indexes and GPUs of the process."""
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(TEMPORARY_BYTES)
    return resources


def _empty_index(faiss: ModuleType, width: int, device: torch.device) -> _Index:
    index: _Index
    if device.type != "cuda":
        index = faiss.IndexFlatIP(width)
        return index
    options = faiss.GpuIndexFlatConfig()
    options.device = device.index or 0
    index = faiss.GpuIndexFlatIP(_gpu_resources(faiss), width, options)
    return index
