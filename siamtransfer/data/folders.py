"""Images on disk as sets: a tree with a folder for each class, and any folder without labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from siamtransfer.data.class_names import classes_of, match_to_train
from siamtransfer.data.class_tree import filled_folders, find_split, no_images
from siamtransfer.data.decode import decode
from siamtransfer.data.image_file import open_image, read_file
from siamtransfer.data.imageset import fingerprint_of_arrays
from siamtransfer.data.listing import (
    ARRAY_ENDINGS,
    ENDINGS,
    STAT_THREADS,
    Listing,
    PathTable,
    Skipped,
    list_folders,
    list_images,
    require_folder,
)
from siamtransfer.data.name_buffer import NameBuffer, in_runs
from siamtransfer.data.parts import PartsOption
from siamtransfer.data.pixel_form import RGB, PixelForm
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.text import printable

CONTENT_LIMIT = (
    2**28
)  # bytes of a set whose files are read for `FileImages.content_fingerprint`: half a second


class FileImages:
    """N image files as an ImageSet; a subclass lists the files.

    The fingerprint covers relative paths, file sizes, labels and class names: it changes when a file is
    added, removed, renamed or replaced by one of another size, and needs no reading of a million files. It
    is the same for a copy of the set, so a run can go on with one. `content_fingerprint` covers what the
    files hold, too.
    `skipped` counts the files whose ending is not an image's, `skipped_endings` by ending. `form` says how
    their pixels become uint8[H,W,C]; the fingerprint covers what is not usual in it. `remark` is what was
    remarked about the images when the set was opened, `set_remarks` what about names, classes and parts.
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
        skipped_endings: Mapping[str, Skipped] | None = None,
    ):
        self.name, self.split, self.classes, self.labels = name, split, tuple(classes), labels
        self.skipped, self.skipped_example = skipped, skipped_example
        self.skipped_endings = dict(skipped_endings or {})
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
        """SHA-256 over the fingerprint, how pixels are looked at, and the bytes of all files; of a set larger
        than CONTENT_LIMIT, over the times of their last changes instead. See `content_fingerprint`."""
        sizes, times = self._sizes_and_times.T
        text = self.fingerprint + self.form.view_text
        if sizes.sum() > CONTENT_LIMIT:
            return fingerprint_of_arrays(np.ascontiguousarray(times), text=text)
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            digests = pool.map(_digest, (self._files[index] for index in range(len(self))))
            return hashlib.sha256("\n".join([text, *digests]).encode()).hexdigest()

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
        return read_file(self._files[index], form=self.form)

    def relative_name(self, index: int) -> str:
        """The path of image `index` below the folder of the set."""
        return self._files.relative(index)

    def path(self, index: int) -> str:
        """The full path of image `index`; bytes that are not UTF-8 are surrogates (os.fsencode)."""
        return self._files[index]

    def opened(self, index: int) -> IO[bytes]:
        """The file of image `index`, to be read and closed; raises UnreadableImage."""
        return open_image(self._files[index], form=self.form)

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
            raise UserError(no_images(folder, listing.skipped, listing.skipped_example))
        super().__init__(
            name,
            split,
            PathTable(folder, listing.paths),
            skipped=listing.skipped,
            skipped_example=listing.skipped_example,
            skipped_endings=listing.skipped_endings,
        )


class ClassFolder(FileImages):
    """A tree with one folder for each class: `root/<split>/<class>/…`, or `root/<class>/…` as split train.

    Folders are splits if their names say so (see parts.py); `parts` "none" takes all folders as classes.
    Classes are sorted by name, as numbers if all are numbers; images by class and then by path; folders below
    a class belong to it. A folder without images is no class. The classes of any split are those of train:
    one of them may have no image in another split. `split` is the name of the folder, or `train`, `val` or
    `test` if that is spelled in another way; it is `val` if the argument is `test` and there is only `val`.
    `set_remarks` says what of this is not plain, and `doubt` why the folders may be no classes; then
    nothing may be scored by them.

    Raises:
        UserError: no such folder or split, no class folders, a class with images that train has none of,
            or folders of which it is not clear whether they are parts or classes.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        name: str = "folder",
        parts: PartsOption = "auto",
    ):
        place = find_split(require_folder(root), split, parts)
        folder = place.folder
        names = list_folders(folder)
        listing, counts = _list_classes(folder, names, frozenset(ENDINGS))
        if not listing.paths:
            arrays, array_counts = _list_classes(folder, names, ARRAY_ENDINGS)
            if not arrays.paths:
                raise UserError(no_images(folder, listing.skipped, listing.skipped_example))
            listing, counts = arrays, array_counts
        filled = [each for each in names if counts[each]]
        if place.train is None:
            empty = [each for each in names if not counts[each]]
            classes, remarks = classes_of(filled, empty, printable(folder))
            numbers = {each: number for number, each in enumerate(classes)}
        else:
            classes, _ = classes_of(filled_folders(place.train), [], printable(place.train))
            numbers, remarks = match_to_train(filled, classes, place.split, printable(folder))
        order = sorted(filled, key=numbers.__getitem__)
        ends = dict(zip(names, np.cumsum([counts[each] for each in names]).tolist(), strict=True))
        paths = listing.paths
        if order != filled:
            paths = in_runs(paths, ((ends[each] - counts[each], ends[each]) for each in order))
        labels = np.repeat(
            np.array([numbers[each] for each in order], dtype=np.int64), [counts[each] for each in order]
        )
        super().__init__(
            name,
            place.split,
            PathTable(folder, paths),
            labels=labels,
            classes=classes,
            skipped=listing.skipped,
            skipped_example=listing.skipped_example,
            skipped_endings=listing.skipped_endings,
        )
        self.set_remarks = (*place.remarks, *remarks)
        self.doubt = place.doubt


def _list_classes(folder: Path, names: Sequence[str], endings: Set[str]) -> tuple[Listing, dict[str, int]]:
    """The files in the class folders, in the order of `names`, and how many each has."""
    paths, counts = NameBuffer(), {}
    listing = list_images(folder, nested=False, endings=endings)
    for path in listing.paths:  # a file beside the class folders belongs to no class
        listing.skip(f"{folder}/{os.fsdecode(path)}")
    for name in names:
        inside = list_images(folder / name, endings=endings, prefix=f"{name}/")
        paths.extend(inside.paths)
        listing.skip_all(inside)
        counts[name] = len(inside.paths)
    listing.paths = paths
    return listing, counts
