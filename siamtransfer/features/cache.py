"""Extracted features on disk.

The key is made of content (digest of the weights, content of the images, transform, precision), so new
weights under an old path have another key. A file is published by one rename, so it is complete or absent.

A file is an .npy, which any program can open, followed by a checksum: the SHA-256 of its key and its bytes.
It is compared whenever the file is read, before a number of it is used. That costs one pass over the file,
which goes through the processor's cores side by side: 0.7 GiB a second and core were measured, about a second
for 60,000 images of 2048 features; extracting them takes minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed import collectives
from siamtransfer.features.extract import Transform
from siamtransfer.metering.meter import count_cached
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say

CPU = torch.device("cpu")
VERSION = 2  # of the files; a part of the key
_MARK = b"\nsha256 of name and content: "
_CHECKSUM_BYTES = len(_MARK) + 64 + 1  # in hexadecimal, then a line's end
_BLOCK = 2**24
_THREADS = 8
_FOLDERS_REMARKED: set[Path] = set()  # that could not be written, in this process


class FeatureCache:
    """Extracted features on disk, an .npy file for each key, in `folder`.

    A file that is damaged, or that cannot be read or written, costs time and a remark, never an error.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(
        self,
        weights: str,
        images: str,
        transform: Transform,
        precision: str,
        layers: Sequence[str] = ("output",),
    ) -> Path:
        """The file for the features of these weights on these images (see `content_fingerprint`)."""
        key = json.dumps(
            [VERSION, weights, images, asdict(transform), precision, list(layers)], sort_keys=True
        )
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"

    def read_or_extract(
        self, path: Path, images: int, extract_share: Callable[[], Tensor], device: torch.device = CPU
    ) -> Tensor:
        """The features of `images` images under `path`, the same on every rank.

        Where some rank cannot read them, every rank calls `extract_share` for its rows (of the images rank,
        rank + world_size, …), which pass through `device`, a block at a time, into the file of rank 0. With
        several ranks, each then maps that file. Only where that is not possible (no space, or several
        machines without a common folder) each has all features in its memory.
        """
        cached = self._read_on_every_rank(path, images)
        if cached is not None:
            count_cached(images / collectives.world_size())
            return cached
        share = extract_share()
        self._keep(path, share, images, device)
        if collectives.world_size() == 1:
            return share
        cached = self._read_on_every_rank(path, images)
        return collectives.all_gather_rows(share, images, device) if cached is None else cached

    def _read_on_every_rank(self, path: Path, images: int) -> Tensor | None:
        """`read`, or None on all ranks where it is None on one."""
        remark = say if collectives.rank() == 0 else lambda _: None
        with collectives.own_pace("reading the kept features"):
            cached = self.read(path, images, remark=remark)
        return cached if all(collectives.all_gather_object([cached is not None])) else None

    def read(self, path: Path, images: int, *, remark: Callable[[str], None] = say) -> Tensor | None:
        """The features under `path`, memory-mapped; None when they are absent, or damaged: with a remark."""
        try:
            if not _is_intact(path):
                remark(f"{path} is damaged and is not used: its bytes do not match its checksum")
                return None
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            remark(f"{path} cannot be read and is not used: {reason}")
            return None
        if array.ndim != 2 or len(array) != images or array.dtype != np.float32:
            remark(f"{path} holds {array.dtype}{list(array.shape)} and is not used: it is of other features")
            return None
        return torch.from_numpy(array)

    def write(self, path: Path, features: Tensor) -> None:
        """Publishes `features` under `path`.

        Raises:
            UserError: the folder cannot be written or the disk is full.
        """
        with atomic_write(path) as file:
            np.save(file, features.numpy(), allow_pickle=False)
            self._sign(file, path)

    def keep(self, path: Path, rows: Tensor) -> None:
        """`write` of float32[N, D] that a later run need not compute again; a remark where it fails."""
        self._remark_once(lambda: self.write(path, rows))

    def _keep(self, path: Path, share: Tensor, images: int, device: torch.device) -> None:
        """Rank 0 publishes the features, of which each rank has its share; a cache that cannot be written is
        remarked once."""
        if collectives.world_size() == 1:
            return self.keep(path, share)
        blocks = collectives.gather_blocks(share, images, device)
        with collectives.own_pace("keeping the features"):  # whose checksum rank 0 computes at the end
            if collectives.rank() == 0:
                shape = (images, share.shape[1])
                self._remark_once(lambda: self._write_blocks(path, blocks, shape))
            for _ in blocks:  # the other ranks send theirs, whatever became of the file
                pass
        return None

    def _write_blocks(self, path: Path, blocks: Iterator[Tensor], shape: tuple[int, int]) -> None:
        """`write` of the float32 rows that `blocks` yields."""
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with atomic_write(path) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                file.write(block.cpu().contiguous().numpy().tobytes())
            self._sign(file, path)

    def _sign(self, file: IO[bytes], path: Path) -> None:
        file.flush()
        file.write(_MARK + _checksum(file, file.tell(), path.name) + b"\n")

    def _remark_once(self, write: Callable[[], None]) -> None:
        try:
            write()
        except UserError as error:
            if self.folder not in _FOLDERS_REMARKED:
                say(f"features are not kept for the next time: {error}")
            _FOLDERS_REMARKED.add(self.folder)


def feature_cache(folder: str | None) -> FeatureCache | None:
    """The cache in `folder`, or in the user's cache folder where it is None; none for the word `none`, and
    for a user without a home."""
    if folder == "none":
        return None
    if folder:
        return FeatureCache(Path(folder))
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # as in some containers
        return None
    return FeatureCache(home / "siamtransfer" / "features")


def _is_intact(path: Path) -> bool:
    """Whether the file's bytes are those that `FeatureCache.write` wrote under this name."""
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size - _CHECKSUM_BYTES
        if length <= 0:
            return False
        return os.pread(file.fileno(), _CHECKSUM_BYTES, length) == (
            _MARK + _checksum(file, length, path.name) + b"\n"
        )


def _checksum(file: IO[bytes], length: int, name: str) -> bytes:
    """SHA-256, in hexadecimal, over the name and the digests of the blocks of the first `length` bytes."""

    def digest(start: int) -> bytes:
        return hashlib.sha256(os.pread(file.fileno(), min(_BLOCK, length - start), start)).digest()

    with ThreadPoolExecutor(_THREADS) as pool:
        blocks = b"".join(pool.map(digest, range(0, length, _BLOCK)))
    return hashlib.sha256(f"{name} {length} ".encode() + blocks).hexdigest().encode()
