"""All masks of a set looked at before something is trained on them.

Only counts of values are kept of a mask, so the memory does not grow with the size of the images.

Legend: N images, C classes, V values that a mask's file can hold.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from joblib import Parallel, cpu_count, delayed

from siamtransfer.data.orientation import is_sideways
from siamtransfer.segmentation.data.class_values import VALUES, ClassValues
from siamtransfer.segmentation.data.mask_files import MaskFiles
from siamtransfer.segmentation.data.mask_orientation import (
    AS_STORED,
    MaskReading,
    as_image_is_read,
    size_of_image,
)
from siamtransfer.segmentation.data.masked_images import MaskedImages, size_mismatch
from siamtransfer.segmentation.data.read_mask import read_mask
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

_ALONE = 4000  # masks that one process looks at in the time that others need to start
_AT_ONCE = 32  # pairs a task
_MOST_PROCESSES = 8
_PROGRESS_SECONDS = 10.0
_STRETCHES = (256, 257)  # factors by which programs stretch 8 bits to 16


class Look(NamedTuple):
    """What is kept of a pair.

    problem: the sentence about what is wrong with it, or None. values, counts: int64[v], the values in the
    mask's file and their pixels.
    """

    problem: str | None
    values: np.ndarray
    counts: np.ndarray


@dataclass
class MaskReport:
    """What a check has found.

    Attributes:
        pixels: int64[C], the pixels of each class.
        images: int64[C], the images that show it.
        ignored: the number of ignored pixels.
        checked: the number of masks that were looked at.
        remarks: what is no error but should be known, a sentence each.
    """

    pixels: np.ndarray
    images: np.ndarray
    ignored: int = 0
    checked: int = 0
    remarks: list[str] = field(default_factory=list)


def check_masks(
    images: MaskedImages, *, at_most: int | None = None, processes: int | None = None
) -> MaskReport:
    """Looks at every mask of a set, or at `at_most` of them, evenly taken.

    Several processes (by default as many as there are processors, up to eight) read the files. The
    progress is said every ten seconds. The masks of a set that is no files are only counted.

    Raises:
        UserError: masks that cannot be read, sizes that differ from the image's, values that are neither a
            class nor ignored, or no pixel that counts; names the first file and the number of such files.
    """
    count = len(images) if at_most is None else min(at_most, len(images))
    chosen = np.linspace(0, len(images) - 1, count).round().astype(int).tolist()
    if not isinstance(images, MaskFiles):
        return _count_rendered(images, chosen)
    name, tally = f"{images.name}/{images.split}", _Tally(images.values)
    paths = [(images.path(index), images.mask_path(index)) for index in chosen]
    began = said = time.monotonic()
    for (image, mask), look in zip(paths, _looks(paths, images.reading, processes), strict=True):
        tally.add(image, mask, look)
        if time.monotonic() - said > _PROGRESS_SECONDS:
            said = time.monotonic()
            left = (said - began) / tally.looked * (count - tally.looked)
            say(f"checked {tally.looked:,} of {count:,} masks of {name}, {left:.0f} s left")
    return tally.report(name)


def look_at(image: str, mask: str, reading: MaskReading = AS_STORED) -> Look:
    """Looks at the files of an image, of which only the header is read, and of its mask."""
    none = np.zeros(0, np.int64)
    try:
        raw = read_mask(mask)
        size = size_of_image(image)
        raw = as_image_is_read(raw, reading, image, mask)
    except UserError as error:
        return Look(str(error), none, none)
    except Exception as error:  # Pillow's readers raise errors of many types for damaged files
        why = " ".join(str(error).split()) or type(error).__name__
        return Look(f"cannot read the image {printable(image)}: {why}; mend the file", none, none)
    read = size.size(reading.orientation)
    if raw.shape != read:
        turned = is_sideways(size.orientation)
        return Look(size_mismatch(printable(image), read, printable(mask), raw.shape, turned), none, none)
    counts = np.bincount(raw.ravel())
    values = np.flatnonzero(counts)
    return Look(None, values, counts[values])


def _looks(paths: list[tuple[str, str]], reading: MaskReading, processes: int | None) -> Iterator[Look]:
    """A look at every pair, in their order."""
    if processes is None:
        processes = 1 if len(paths) < _ALONE else min(_MOST_PROCESSES, cpu_count())
    if processes == 1:
        yield from _look_at_some(paths, reading)
        return
    tasks = (paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE))
    parallel = Parallel(processes, return_as="generator", pre_dispatch=4 * processes, batch_size=1)
    for looks in parallel(delayed(_list_of_looks)(task, reading) for task in tasks):
        yield from looks


def _look_at_some(paths: list[tuple[str, str]], reading: MaskReading) -> Iterator[Look]:
    return (look_at(*pair, reading) for pair in paths)


def _list_of_looks(paths: list[tuple[str, str]], reading: MaskReading) -> list[Look]:
    return list(_look_at_some(paths, reading))


class _Tally:
    """The sums over all looks, and the first file of everything that is wrong."""

    def __init__(self, values: ClassValues):
        self._values = values
        self._counts = np.zeros(VALUES, np.int64)
        self._images = np.zeros(len(values.classes), np.int64)
        self._problems: list[str] = []
        self._broken: list[str] = []
        self._unknown_files: list[str] = []
        self._all_ignored: list[str] = []
        self.looked = 0

    def add(self, image: str, mask: str, look: Look) -> None:
        """Adds the look at a pair of files."""
        self.looked += 1
        if look.problem is not None:
            self._broken.append(image)
            self._problems.append(look.problem)
            return
        self._counts[look.values] += look.counts
        counts = np.zeros(VALUES, np.int64)
        counts[look.values] = look.counts
        if len(self._values.unknown(counts)):
            self._unknown_files.append(mask)
        shown = self._values.classes_of(counts) > 0
        self._images += shown
        if not shown.any():
            self._all_ignored.append(mask)

    def report(self, name: str) -> MaskReport:
        """The sums; raises UserError where masks are not usable."""
        if self._problems:
            count = len(self._problems)
            others = f" ({count} of the {self.looked} pairs of {name} cannot be used)" if count > 1 else ""
            raise UserError(self._problems[0] + others + self._swapped())
        unknown = self._values.unknown(self._counts)
        if len(unknown):
            raise UserError(self._unknown_sentence(name, unknown))
        pixels = self._values.classes_of(self._counts)
        ignored = int(self._counts.sum() - pixels.sum())
        if not pixels.any():
            raise UserError(
                f"every pixel of all {self.looked} masks of {name} is ignored (the first is "
                f"{printable(self._all_ignored[0])}); check the class list and the ignored value"
            )
        remarks = [*self._ignored_remark(name), *absent_remark(name, self._values.classes, pixels, ignored)]
        return MaskReport(pixels, self._images, ignored, self.looked, remarks)

    def _swapped(self) -> str:
        """The end of the sentence where every mask is unusable and the images could be masks; else empty."""
        if len(self._broken) < self.looked:
            return ""
        image = self._broken[0]
        try:
            read_mask(image)
        except UserError:
            return ""
        return f"; {printable(image)} has one number a pixel: are the folders of images and masks swapped?"

    def _unknown_sentence(self, name: str, unknown: np.ndarray) -> str:
        files = len(self._unknown_files)
        where = (
            f"{files} of the {self.looked} masks of {name}, the first {printable(self._unknown_files[0])},"
        )
        where = where if files > 1 else f"the mask {printable(self._unknown_files[0])}"
        sentence = self._values.unknown_sentence(where, unknown.tolist(), self._counts)
        sentence = sentence.replace(", holds ", ", hold ", 1)
        present = np.flatnonzero(self._counts)
        for factor in _STRETCHES:
            if len(present) > 1 and (present % factor == 0).all():
                return (
                    f"{sentence}; all values are multiples of {factor}, so the masks were stretched to 16 "
                    "bits: save them with 8"
                )
        return sentence

    def _ignored_remark(self, name: str) -> list[str]:
        if not self._all_ignored:
            return []
        named = first_few([printable(path) for path in self._all_ignored])
        count = len(self._all_ignored)
        return [
            f"{count} of {self.looked} masks of {name} have no pixel of a class and count nowhere: {named}"
        ]


def absent_remark(name: str, classes: tuple[str, ...], pixels: np.ndarray, ignored: int) -> list[str]:
    """A remark on classes without a pixel[C]; empty where there is none."""
    absent = [label for label, count in zip(classes, pixels, strict=True) if not count]
    if not absent:
        return []
    said = (
        f"{name} has no pixel of {len(absent)} of its {len(classes)} classes ({first_few(absent)}); such a "
        "class cannot be learnt, and the mean IoU leaves it out where it is not predicted either"
    )
    if len(absent) == len(classes) - 1 and ignored:
        said += (
            "; if the ignored value means a class, state another ignored value and name it in the class list"
        )
    return [said]


def _count_rendered(images: MaskedImages, chosen: list[int]) -> MaskReport:
    classes = len(images.classes)
    report = MaskReport(np.zeros(classes, np.int64), np.zeros(classes, np.int64), checked=len(chosen))
    for index in chosen:
        mask = images.mask(index)
        counts = np.bincount(mask[mask != images.ignore], minlength=classes)
        report.pixels += counts
        report.images += counts > 0
        report.ignored += mask.size - int(counts.sum())
    name = f"{images.name}/{images.split}"
    if not report.pixels.any():
        raise UserError(
            f"every pixel of all {len(chosen)} masks of {name} is ignored; give masks that show a class"
        )
    report.remarks = absent_remark(name, images.classes, report.pixels, report.ignored)
    return report
