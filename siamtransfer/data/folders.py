"""Images on disk as sets: a tree with a folder for each class, and any folder without labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np

from siamtransfer.data import depth
from siamtransfer.data.decode import decode, read_file
from siamtransfer.data.imageset import class_difference, fingerprint_of_arrays
from siamtransfer.data.listing import (
    ARRAY_ENDINGS,
    ENDINGS,
    STAT_THREADS,
    Listing,
    PathTable,
    list_folders,
    list_images,
    require_folder,
)
from siamtransfer.data.pixel_form import RGB, PixelForm
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.text import first_few, printable

# Folders of a split, in the order of preference. `test` may be the folder `val`, because ImageNet's labelled
# test images are there; `val` is never the folder `test`, because nothing may be selected on test images.
SPLIT_FOLDERS = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test", "val", "valid", "validation"),
}
CONTENT_LIMIT = (
    2**28
)  # bytes of a set whose files are read for `FileImages.content_fingerprint`: half a second
FOLDERS_OF_SPLITS = ("train", "val", "valid", "validation", "test")


class FileImages:
    """N image files as an ImageSet; a subclass lists the files.

    The fingerprint covers relative paths, file sizes, labels and class names: it changes when a file is
    added, removed, renamed or replaced by one of another size, and needs no reading of a million files. It
    is the same for a copy of the set, so a run can go on with one. `content_fingerprint` covers what the
    files hold, too.
    `skipped` counts the files whose ending is not an image's. `form` says how their pixels become
    uint8[H,W,C]; the fingerprint covers what is not usual in it. `remark` is what was remarked about the
    images when the set was opened, `set_remarks` what about names, classes and parts.
    """

    image_size: int | None = None
    form: PixelForm = RGB
    remark: str | None = None
    set_remarks: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        split: str,
        files: PathTable,
        *,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
        skipped: int = 0,
        skipped_example: str = "",
    ):
        self.name, self.split, self.classes, self.labels = name, split, tuple(classes), labels
        self.skipped, self.skipped_example = skipped, skipped_example
        self._files = files

    @property
    def channels(self) -> int:
        """C."""
        return self.form.channels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over relative paths, sizes, labels and class names; its first use looks at every file."""
        sizes = np.ascontiguousarray(self._sizes_and_times[:, 0])
        return fingerprint_of_files(self._files, sizes, self.labels, self.classes, self.form)

    @cached_property
    def content_fingerprint(self) -> str:
        """SHA-256 over the fingerprint and the bytes of all files; of a set larger than CONTENT_LIMIT, over
        the times of their last changes instead. See `content_fingerprint`."""
        sizes, times = self._sizes_and_times.T
        if sizes.sum() > CONTENT_LIMIT:
            return fingerprint_of_arrays(np.ascontiguousarray(times), text=self.fingerprint)
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            digests = pool.map(_digest, (self._files[index] for index in range(len(self))))
            return hashlib.sha256("\n".join([self.fingerprint, *digests]).encode()).hexdigest()

    @property
    def file_sizes(self) -> np.ndarray:
        """int64[N]: bytes of each file; negative where there is none."""
        return self._sizes_and_times[:, 0]

    @cached_property
    def _sizes_and_times(self) -> np.ndarray:
        return self._files.sizes_and_times()

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,C]; raises UnreadableImage, or WrongChannels."""
        return decode(self._files[index], form=self.form)

    def encoded(self, index: int) -> bytes:
        """The bytes of the file of image `index`; raises UnreadableImage."""
        return read_file(self._files[index])

    def relative_name(self, index: int) -> str:
        """The path of image `index` below the folder of the set."""
        return self._files.relative(index)

    def path(self, index: int) -> str:
        """The full path of image `index`; bytes that are not UTF-8 are surrogates (os.fsencode)."""
        return self._files[index]

    def deep_source(self, index: int) -> str | None:
        """The file of image `index` where its ending is that of a format with more than eight bits."""
        path = self._files[index]
        return path if path.lower().endswith(depth.ENDINGS) else None

    def describe(self, index: int) -> str:
        """The path of image `index`."""
        return printable(self._files[index])


def fingerprint_of_files(
    names: PathTable,
    sizes: np.ndarray,
    labels: np.ndarray | None,
    classes: Sequence[str],
    form: PixelForm,
) -> str:
    """The fingerprint of a set of files, wherever they lie: SHA-256 over relative paths, int64[N] sizes in
    bytes, labels, class names and what is not usual in the form of the pixels."""
    text = "\n".join(classes) + form.text
    return fingerprint_of_arrays(names.buffer, names.ends, sizes, labels, text=text)


def _digest(path: str) -> str:
    try:
        return digest_of_file(path)
    except OSError:
        return "unreadable"


class FlatFolder(FileImages):
    """Every image below `root`, however deep, without labels, in the byte order of the relative paths.

    Raises:
        UserError: no such folder, or no image in it.
    """

    def __init__(self, root: str | Path, *, name: str = "flat", split: str = "train"):
        folder = require_folder(root)
        listing = list_images(folder)
        arrays = listing if listing.paths else list_images(folder, endings=ARRAY_ENDINGS)
        if arrays.paths:
            listing = arrays
        if not listing.paths:
            raise UserError(_no_images(folder, listing))
        super().__init__(
            name,
            split,
            PathTable(folder, listing.paths),
            skipped=listing.skipped,
            skipped_example=listing.skipped_example,
        )


class ClassFolder(FileImages):
    """A tree with one folder for each class: `root/<split>/<class>/…`, or `root/<class>/…` as split train.

    Classes are sorted by name, images by class and then by path; folders below a class belong to it. `split`
    is the name of the folder: `val` if the argument is `test` and there is only `val`.

    Raises:
        UserError: no such folder or split, no class folders, a class without images, or classes other than
            those of the train split.
    """

    def __init__(self, root: str | Path, split: str = "train", *, name: str = "folder"):
        root = require_folder(root)
        folder, split = _folder_of_split(root, split)
        classes = list_folders(folder)
        listing, counts = _list_classes(folder, classes, frozenset(ENDINGS))
        if not listing.paths:
            arrays, array_counts = _list_classes(folder, classes, ARRAY_ENDINGS)
            if not arrays.paths:
                raise UserError(_no_images(folder, listing))
            listing, counts = arrays, array_counts
        if empty := [class_name for class_name, count in zip(classes, counts, strict=True) if count == 0]:
            raise UserError(
                f"{len(empty)} of the {len(classes)} class folders of {printable(folder)} hold no image "
                f"({printable(first_few(empty))}); remove them or put images in"
            )
        train_classes = list_folders(root / "train") if folder != root and (root / "train").is_dir() else []
        if train_classes and (difference := class_difference(split, classes, "train", train_classes)):
            raise UserError(
                f"the class folders of {printable(folder)} and {printable(root / 'train')} differ "
                f"({printable(difference)}); make them the same, as a label is the position in their order"
            )
        super().__init__(
            name,
            split,
            PathTable(folder, listing.paths),
            labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
            classes=classes,
            skipped=listing.skipped,
            skipped_example=listing.skipped_example,
        )


def _list_classes(folder: Path, classes: Sequence[str], endings: Set[str]) -> tuple[Listing, list[int]]:
    """The files in the class folders, and how many each has."""
    listing = list_images(folder, nested=False, endings=endings)
    for path in listing.paths:  # a file beside the class folders belongs to no class
        listing.skip(f"{folder}/{os.fsdecode(path)}")
    listing.paths = []
    counts = []
    for class_name in classes:
        listing.add(inside := list_images(folder / class_name, endings=endings), class_name)
        counts.append(len(inside.paths))
    return listing, counts


def _folder_of_split(root: Path, split: str) -> tuple[Path, str]:
    """The folder that holds the class folders of a split, and the split's name there."""
    folder_names = SPLIT_FOLDERS.get(split, (split,))
    for name in folder_names:
        if (root / name).is_dir() and list_folders(root / name):
            return root / name, name
    present = [name for name in FOLDERS_OF_SPLITS if (root / name).is_dir() and list_folders(root / name)]
    folders = list_folders(root)
    flat = [name for name in folder_names if (root / name).is_dir()]
    if flat and (present or set(folders) <= set(FOLDERS_OF_SPLITS)):
        raise UserError(
            f"{printable(root / flat[0])} holds no class folders; sort its images into a folder for each "
            f"class, or, without labels, use --data.name flat --data.root {printable(root / flat[0])}"
        )
    if present:
        raise UserError(f"{printable(root)} has no split {split}; its splits are {', '.join(present)}")
    if not folders:
        listing = list_images(root)
        raise UserError(
            f"{printable(root)} holds no class folders; for images without labels use --data.name flat"
            if listing.paths
            else _no_images(root, listing)
        )
    if split == "train":
        return root, split
    above = "; give the folder above it" if root.name in FOLDERS_OF_SPLITS else ""
    raise UserError(
        f"{printable(root)} has no split {split}, as it holds {printable(first_few(folders))} and no folders "
        f"named train and {split}{above}"
    )


def _no_images(folder: Path, listing: Listing) -> str:
    skipped = (
        f" ({listing.skipped} other files, such as {listing.skipped_example})" if listing.skipped else ""
    )
    return f"there are no images below {printable(folder)}{skipped}; check --data.root"
