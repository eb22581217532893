"""Tar shards from any set of images: WebDataset's layout, with the index of each shard beside it.

`OUT/train-000000.tar`, … hold the images in the order of the set, with a file `.cls` for the label of each.
The names are those of the set, so the fingerprint of packed files is that of the files they come from, and a
run on a folder goes on with shards of it. A shard appears under its name when it is complete and has been
read back. While packing is not finished, OUT holds `pack.unfinished`, and the shards are refused.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from siamtransfer.data.containers.shards import CLASS_FILE, UNFINISHED
from siamtransfer.data.containers.tar_index import ShardIndex, read_indices, scan, stamp_of, write_index
from siamtransfer.data.decode import decode
from siamtransfer.data.imageset import ImageSet, channels_of
from siamtransfer.data.listing import has_image_ending
from siamtransfer.data.pixel_form import RGB
from siamtransfer.data.unreadable import UnreadableImage, UnreadableImages
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, write_text
from siamtransfer.utils.text import printable

AT_ONCE = 64  # images that threads read and shrink at the same time
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
SMALLEST_SHARD = 10**4  # bytes


@runtime_checkable
class EncodedImages(Protocol):
    """A set whose images lie in files, or inside of some."""

    def encoded(self, index: int) -> bytes: ...

    def relative_name(self, index: int) -> str: ...


@dataclass(frozen=True)
class PackSettings:
    """How images are packed.

    Attributes:
        shard_bytes: a shard is closed before it becomes larger; one image may be.
        size: side in pixels to which the shorter side of larger images is reduced; None keeps every file as
            it is.
        quality: of the JPEGs that reduced images become, from 1 to 100.
        max_unreadable: share of images that may be left out because they cannot be read.
        threads: that read and reduce images.
    """

    shard_bytes: int
    size: int | None = None
    quality: int = 92
    max_unreadable: float = 0.05
    threads: int = 1


@dataclass(frozen=True)
class Packed:
    """What was packed of a split: images, shards, bytes of images, and images left out as unreadable."""

    images: int
    shards: int
    bytes: int
    unreadable: int


Item = tuple[str, bytes, int | None]
"""Name, bytes and label of an image."""


def parse_bytes(text: str) -> int:
    """The bytes that 1GB, 512 MiB or 1000000 says; raises UserError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].upper() not in UNITS:
        raise UserError(f"--shard-size {text!r} is no size; write it as 1GB, 500MB or 512MiB")
    size = int(float(match[1]) * UNITS[match[2].upper()])
    if size < SMALLEST_SHARD:
        raise UserError(f"--shard-size {text} is less than {SMALLEST_SHARD:,} bytes; give at least 10KB")
    return size


def pack(
    sets: Sequence[ImageSet],
    out: Path,
    settings: PackSettings,
    *,
    resume: bool = False,
    progress: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> dict[str, Packed]:
    """Packs each set into shards `OUT/SPLIT-NNNNNN.tar`; returns what was packed of each split.

    `progress` is called with split, images done and images in all. `resume` goes on where a process ended;
    complete shards stay.

    Raises:
        UserError: `out` holds something (without `resume`) or was begun with other images or settings; more
            images are unreadable than allowed; a set has several labels an image, or images of other than
            three channels that would have to be written anew; the disk is full.
    """
    for images in sets:
        if images.labels is not None and images.labels.ndim != 1:
            raise UserError(f"the images of {images.name} have several labels each, and a shard holds one")
        if channels_of(images) != 3 and (settings.size or not isinstance(images, EncodedImages)):
            raise UserError(
                f"the images of {images.name} have {channels_of(images)} channels, and only whole files of "
                "such images are packed: leave --size out, and pack a set of files"
            )
    _begin(out, _plan(sets, settings), resume=resume)
    classes = next((images.classes for images in sets if images.labels is not None), ())
    if classes:
        write_text(out / CLASS_FILE, "".join(f"{_one_line(name)}\n" for name in classes))
    packed = {}
    for images in sets:

        def done(count: int, images: ImageSet = images) -> None:
            progress(images.split, count, len(images))

        packed[images.split] = _SplitPacker(images, out, settings, done).run()
    (out / UNFINISHED).unlink()
    return packed


def _one_line(name: str) -> str:
    if name.strip() != name or "\n" in name or not name:
        raise UserError(f"the class name {name!r} begins or ends with white space; rename it")
    return name


def _plan(sets: Sequence[ImageSet], settings: PackSettings) -> str:
    """What is packed and how, as the text of the file that marks an unfinished pack."""
    kept = {key: value for key, value in asdict(settings).items() if key != "threads"}
    prints = {images.split: images.fingerprint for images in sets}
    return json.dumps({"settings": kept, "fingerprints": prints}, indent=1) + "\n"


def _begin(out: Path, plan: str, *, resume: bool) -> None:
    mark = out / UNFINISHED
    if out.exists() and not out.is_dir():
        raise UserError(f"{printable(out)} is a file; name a new folder for the shards")
    if not out.exists() or not any(out.iterdir()):
        write_text(mark, plan)
        return
    if not mark.exists():
        raise UserError(f"{printable(out)} is not empty, and packing replaces nothing; name a new folder")
    if not resume:
        raise UserError(
            f"packing into {printable(out)} was not finished; go on with --resume, or name a new folder"
        )
    if mark.read_text() != plan:
        raise UserError(
            f"packing into {printable(out)} was begun with other images or settings; give the same, or name "
            "a new folder"
        )


class _SplitPacker:
    """The shards of one split."""

    def __init__(self, images: ImageSet, out: Path, settings: PackSettings, progress: Callable[[int], None]):
        self.images, self.out, self.settings, self.progress = images, out, settings, progress
        self.unreadable = UnreadableImages(len(images), settings.max_unreadable)
        self.left_out = 0  # before this process began
        self.names: set[str] = set()  # keys so far

    def run(self) -> Packed:
        """Writes all shards that are not there yet."""
        start, indices = self._complete_shards()
        shards, count = len(indices), sum(len(index.names) for index in indices)
        size = sum(int(index.sizes.sum()) for index in indices)
        items = self._items(start)
        held = next(items, None)
        while held is not None:
            path = self.out / f"{self.images.split}-{shards:06}.tar"
            with atomic_write(path) as file:
                held, crcs = self._fill(file, held, items)
                file.flush()
                index = scan(Path(file.name))
                _verify(file, index, crcs, path)
            write_index(path, index, stamp_of(path))
            shards, count, size = shards + 1, count + len(crcs), size + int(index.sizes.sum())
        if not count:
            raise UserError(f"no image of {self.images.name}/{self.images.split} could be packed")
        return Packed(count, shards, size, self.unreadable.count + self.left_out)

    def _complete_shards(self) -> tuple[int, list[ShardIndex]]:
        """The first image that no shard holds, and the shards that are complete."""
        indices: list[ShardIndex] = []
        position = 0
        while (path := self.out / f"{self.images.split}-{len(indices):06}.tar").exists():
            indices.append(index := read_indices([path])[0])
            for number in range(len(index.names)):
                name = index.names.relative(number)
                while position < len(self.images) and not self._is(position, name):
                    position, self.left_out = position + 1, self.left_out + 1
                if position == len(self.images):
                    raise UserError(f"{printable(path)} holds {printable(name)}, which the set does not")
                self.names.add(_key(name))
                position += 1
        return position, indices

    def _is(self, position: int, name: str) -> bool:
        """Whether the shard's `name` is that of image `position`; a reduced one has another ending."""
        key = _key(self._name(position))
        return _key(name) in (key, f"{key}-{position}")

    def _items(self, start: int) -> Iterator[Item]:
        """Name, bytes and label of every readable image from `start` on."""
        with ThreadPoolExecutor(self.settings.threads) as pool:
            for first in range(start, len(self.images), AT_ONCE):
                numbers = range(first, min(first + AT_ONCE, len(self.images)))
                for index, result in zip(numbers, pool.map(self._encode, numbers), strict=True):
                    if isinstance(result, UnreadableImage):
                        self.unreadable.add(result.where, result.why)
                        continue
                    label = None if self.images.labels is None else int(self.images.labels[index])
                    name, data = result
                    yield self._unique(name, index), data, label
                self.progress(numbers[-1] + 1)

    def _unique(self, name: str, index: int) -> str:
        """`name`, or with the index in it where its key was taken before."""
        key, ending = _key(name), name[len(_key(name)) :]
        if key in self.names:
            key = f"{key}-{index}"
        self.names.add(key)
        return key + ending

    def _encode(self, index: int) -> tuple[str, bytes] | UnreadableImage:
        """The name and the bytes of an image."""
        name = self._name(index)
        try:
            if not isinstance(self.images, EncodedImages):
                return name, _png(self.images.image(index))
            data = self.images.encoded(index)
            if not data:
                return UnreadableImage(self.images.describe(index), "the file is empty")
            if self.settings.size is None:
                return name, data
            pixels = decode(data, self.images.describe(index), getattr(self.images, "form", RGB))
        except UnreadableImage as failure:
            return failure
        if min(pixels.shape[:2]) <= self.settings.size:
            return name, data
        return f"{_key(name)}.jpg", _reduced(pixels, self.settings.size, self.settings.quality)

    def _name(self, index: int) -> str:
        """The name of an image in a shard: its own, with dots in it replaced that would end the key."""
        if not isinstance(self.images, EncodedImages):
            return f"{index:08}.png"
        folder, slash, base = self.images.relative_name(index).lstrip("/").rpartition("/")
        stem, _, ending = base.rpartition(".") if has_image_ending(base) else (base, "", "jpg")
        return f"{folder}{slash}{stem.replace('.', '_') or '_'}.{ending}"

    def _fill(self, file: IO[bytes], held: Item, items: Iterator[Item]) -> tuple[Item | None, list[int]]:
        """Writes images to a shard until it is full: the first that is not in it, and the CRC-32 of each."""
        crcs: list[int] = []
        following: Item | None = held
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            while following is not None:
                name, data, label = following
                if crcs and archive.offset + len(data) + 4096 > self.settings.shard_bytes:
                    break
                _add(archive, name, data)
                if label is not None:
                    _add(archive, f"{_key(name)}.cls", str(label).encode())
                crcs.append(zlib.crc32(data))
                following = next(items, None)
        return following, crcs


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _key(name: str) -> str:
    return name.rpartition(".")[0]


def _verify(file: IO[bytes], index: ShardIndex, crcs: list[int], path: Path) -> None:
    """Reads a shard back by its index and compares every image with what was written."""
    good = len(index.names) == len(crcs)
    for offset, size, crc in zip(index.offsets.tolist(), index.sizes.tolist(), crcs, strict=False):
        file.seek(offset)
        good = good and zlib.crc32(file.read(size)) == crc
    if not good:
        raise UserError(f"{printable(path)} does not hold what was written to it; check the disk")


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _reduced(pixels: np.ndarray, size: int, quality: int) -> bytes:
    """A JPEG of an image whose shorter side becomes `size`."""
    image = Image.fromarray(pixels)
    scale = size / min(image.size)
    new = max(size, round(image.width * scale)), max(size, round(image.height * scale))
    out = io.BytesIO()
    image.resize(new, Image.Resampling.LANCZOS).save(out, "JPEG", quality=quality)
    return out.getvalue()
