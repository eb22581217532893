"""Tar shards in WebDataset's layout, with an index of offsets: any image is read by itself, in any order."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np

from siamtransfer.data.containers.contained import ContainedImages, Handles
from siamtransfer.data.containers.label_texts import read_labels
from siamtransfer.data.containers.splits import find_files
from siamtransfer.data.containers.tar_index import BLOCK, ShardIndex, read_indices
from siamtransfer.data.image_file import require_bytes
from siamtransfer.data.listing import PathTable
from siamtransfer.data.parts import PartsOption
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import printable

CLASS_FILE = "classes.txt"  # beside the shards: the name of each class, a line each
UNFINISHED = "pack.unfinished"  # beside shards while `pack` writes them


class ShardImages(ContainedImages):
    """The images of the tar shards of a split: shards by name, images in the order of the shard.

    Labels that are integers count the lines of `classes.txt` beside the shards or in the folder above, and
    where there is none the classes are these numbers; other labels are names. Texts (`KEY.txt`) that are
    neither integers nor names of `classes.txt` are captions, and the set has no labels.

    Raises:
        UserError: see `find_files` and `read_indices`; no image; an image that is in two shards; packing that
            was not finished.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, name: str = "shards", parts: PartsOption = "auto"
    ):
        shards, split = find_files(root, split, ".tar", "tar shards", parts)
        _require_finished(shards[0].parent)
        indices = read_indices(shards)
        counts = np.array([len(index.names) for index in indices], dtype=np.int64)
        if not counts.sum():
            raise UserError(f"there are no images in the shards of {printable(root)}; check the path")
        names = PathTable.joined([index.names for index in indices])
        sizes = np.concatenate([index.sizes for index in indices])
        _require_once(shards, names, sizes, counts)
        labels, classes = _labels(shards, indices)
        super().__init__(name, split, shards, names, sizes, labels=labels, classes=classes)
        self.skipped = sum(index.skipped for index in indices)
        self.skipped_example = next((i.skipped_example for i in indices if i.skipped), "")
        self._ends = np.cumsum(counts)
        self._offsets = np.concatenate([index.offsets for index in indices])
        self._headers = np.concatenate([index.headers for index in indices])
        self._handles = Handles(self.containers)

    def container_of(self, index: int) -> int:
        """The position in `containers` of the shard that holds image `index`."""
        return int(np.searchsorted(self._ends, index, side="right"))

    def encoded(self, index: int) -> bytes:
        """The bytes of image `index`; raises UnreadableImage."""
        offset, size = int(self._offsets[index]), int(self.sizes[index])
        require_bytes(size, self.describe(index), self.form)
        try:
            block = self._handles.read(self.container_of(index), offset - BLOCK, BLOCK + size)
        except OSError as error:
            why = f"the shard cannot be read ({error.strerror or error})"
            raise UnreadableImage(self.describe(index), why) from error
        if zlib.crc32(block[:BLOCK]) != self._headers[index]:
            raise UnreadableImage(self.describe(index), "the shard is not the one that was indexed")
        if len(block) < BLOCK + size:
            raise UnreadableImage(self.describe(index), "the shard is truncated")
        return block[BLOCK:]


def _require_finished(folder: Path) -> None:
    if (folder / UNFINISHED).exists():
        raise UserError(
            f"the shards in {printable(folder)} are not complete, as packing them was not finished; run the "
            "same siamtransfer pack with --resume"
        )


def _require_once(shards: list[Path], names: PathTable, sizes: np.ndarray, counts: np.ndarray) -> None:
    """Keys may begin anew in each shard; an image of the same name and size in two is one shard copied."""
    keys = np.fromiter(
        (hash((names.relative(index), int(sizes[index]))) for index in range(len(names))),
        np.int64,
        len(names),
    )
    order = np.argsort(keys, kind="stable")
    for position in np.flatnonzero(keys[order][1:] == keys[order][:-1]):
        first, second = int(order[position]), int(order[position + 1])
        if names.relative(first) == names.relative(second) and sizes[first] == sizes[second]:
            one, other = (
                shards[int(np.searchsorted(np.cumsum(counts), i, "right"))] for i in (first, second)
            )
            raise UserError(
                f"{printable(names.relative(first))} is in the shard {printable(one)} and in "
                f"{printable(other)}; leave it in one of them"
            )


def _labels(shards: list[Path], indices: list[ShardIndex]) -> tuple[np.ndarray | None, list[str]]:
    """int64[N] and class names; (None, []) without labels."""
    filled = [(shard, index) for shard, index in zip(shards, indices, strict=True) if len(index.names)]
    kind = filled[0][1].kind
    for shard, index in filled:
        if index.kind != kind:
            words = [f"by .{k}" if k else "none" for k in (kind, index.kind)]
            raise UserError(
                f"the shards {printable(filled[0][0])} and {printable(shard)} have different labels "
                f"({words[0]}, {words[1]}); label all in one way"
            )
    if not kind:
        return None, []
    table = PathTable.joined([index.labels for _, index in filled])
    texts = np.array([table.relative(index) for index in range(len(table))])
    classes = _class_names(shards[0].parent)
    if kind == "txt" and not np.char.isdigit(texts).all() and not set(np.unique(texts)) <= set(classes):
        say(
            f"remark: the .txt files in {printable(shards[0].parent)} are taken for captions, so the set has "
            f"no labels; names of classes need a {CLASS_FILE} beside the shards"
        )
        return None, []
    return read_labels(texts, classes, str(shards[0].parent))


def _class_names(folder: Path) -> list[str]:
    """The lines of the file of class names in `folder` or above it; empty where there is none."""
    for path in (folder / CLASS_FILE, folder.parent / CLASS_FILE):
        if path.is_file():
            names = [line.strip() for line in os.fsdecode(path.read_bytes()).splitlines()]
            names = names[: len(names) - next((n for n, line in enumerate(reversed(names)) if line), 0)]
            if len(set(names)) < len(names) or "" in names:
                raise UserError(
                    f"{printable(path)} has an empty line or a name twice; give each class one name"
                )
            return names
    return []
