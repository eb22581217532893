"""What every set of images offers, and what pretraining does about an image that cannot be read.

Legend: N images, H and W pixels; an image is uint8[H,W,3] in RGB, rows first, C-contiguous.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from siamtransfer.utils.errors import UserError

ATTEMPTS = 16  # images tried for one index, itself included, before the run gives up
NAMED_IN_ERRORS = 5  # bad files spelled out in a message
ROWS_AT_A_TIME = 4096  # hashed in pieces, since a view with other strides has to be copied first


class ImageSet(Protocol):
    """N images in a fixed order; a label each, or none at all."""

    @property
    def name(self) -> str:
        """The name under which the set was asked for, for example `cifar10`."""

    @property
    def split(self) -> str:
        """The part of the set, for example `train`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class; empty when there are no labels."""

    @property
    def labels(self) -> np.ndarray | None:
        """int64[N], each an index into `classes`; None when there are no labels."""

    @property
    def image_size(self) -> int | None:
        """The side in pixels when every image is a square of this size, else None."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal; the same for the same images wherever they lie, however they are listed."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,3]; raises UnreadableImage."""

    def describe(self, index: int) -> str:
        """Where image `index` comes from: its path, or for example `cifar10/train[17]`."""


class UnreadableImage(UserError):
    """One image that cannot be decoded: `where` it lies and `why` it is refused."""

    def __init__(self, where: str, why: str | None = None):
        if why is None:  # from a worker process
            sentence = _last_words(where, type(self))
            where, _, why = sentence.removeprefix(_HEAD).removesuffix(_CURE).rpartition(_BECAUSE)
        super().__init__(where, why)
        self.where, self.why = where, why

    def __str__(self) -> str:
        return f"{_HEAD}{self.where}{_BECAUSE}{self.why}{_CURE}"


_HEAD, _BECAUSE, _CURE = "cannot read the image ", " because ", "; mend the file or take it out of the set"


class NothingReadable(UserError):
    """One image and all those tried in its place could not be read."""

    def __init__(self, sentence: str):
        super().__init__(_last_words(sentence, type(self)))


def _last_words(text: str, kind: type[Exception]) -> str:
    """The message of an error that PyTorch's DataLoader raises again for a worker process.

    It does so with the worker's whole traceback as the only argument, whose last line holds the message: with
    and without workers the user reads the same sentence.
    """
    return text.strip().rpartition("\n")[2].removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")


class ArrayImages:
    """Images of one size that lie in memory, as an ImageSet.

    `pixels` is uint8[N,H,W,3], or uint8[N,H,W] for grey images, whose value is repeated into the three
    channels when an image is read. The fingerprint covers pixels, labels and class names.
    """

    def __init__(
        self,
        name: str,
        split: str,
        pixels: np.ndarray,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
    ):
        self.name, self.split, self.classes = name, split, tuple(classes)
        self.pixels = pixels
        self.labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        height, width = pixels.shape[1:3]
        self.image_size = int(height) if height == width else None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels and class names."""
        return fingerprint_of_arrays(self.pixels, self.labels, text="\n".join(self.classes))

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,3], a copy that may be written to."""
        pixels = self.pixels[index]
        return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.array(pixels, order="C")

    def describe(self, index: int) -> str:
        """For example `cifar10/train[17]`."""
        return f"{self.name}/{self.split}[{index}]"


def fingerprint_of_arrays(*arrays: np.ndarray | None, text: str = "") -> str:
    """SHA-256 (hexadecimal) over the type, shape and bytes of each array and over `text`."""
    digest = hashlib.sha256(text.encode(errors="surrogateescape"))
    for array in arrays:
        digest.update(b"\0none\0" if array is None else f"\0{array.dtype.str}{array.shape}\0".encode())
        if array is None:
            continue
        for start in range(0, len(array), ROWS_AT_A_TIME):
            digest.update(np.ascontiguousarray(array[start : start + ROWS_AT_A_TIME]).view(np.uint8).data)
    return digest.hexdigest()


def printable(path: str | os.PathLike[str]) -> str:
    """The path as one line of text: control characters and bytes that are not UTF-8 are spelled out."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_few(items: Sequence[str]) -> str:
    """The first items in words, and how many more there are."""
    more = len(items) - NAMED_IN_ERRORS
    return ", ".join(items[:NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")


def read_or_replace(images: ImageSet, index: int) -> tuple[np.ndarray, int, list[UnreadableImage]]:
    """Image `index`, or another one of the set in its place when it cannot be read.

    Which images stand in is a pure function of (index, attempt) and the size of the set: no random state is
    touched, so a resumed run and any number of workers and ranks replace alike. For pretraining only:
    an evaluation calls `images.image` and lets UnreadableImage stop it.

    Returns the image, the index it really has, and the failures met on the way (empty as a rule).

    Raises:
        NothingReadable: ATTEMPTS images in a row (or the whole set, if smaller) could not be read.
    """
    failures: list[UnreadableImage] = []
    tried: set[int] = set()
    for attempt in range(min(ATTEMPTS, len(images))):
        candidate = index if attempt == 0 else _stand_in(index, attempt, len(images), tried)
        try:
            return images.image(candidate), candidate, failures
        except UnreadableImage as failure:
            failures.append(failure)
            tried.add(candidate)
    raise NothingReadable(
        f"{failures[0].where} and the {len(failures) - 1} images tried in its place could all not be read "
        f"(the first because {failures[0].why}); check that the folder really holds images"
    )


def _stand_in(index: int, attempt: int, size: int, tried: set[int]) -> int:
    """A hashed position of the set, moved on to the next image that has not been tried for this index."""
    digest = hashlib.blake2b(f"{index} {attempt}".encode(), digest_size=8).digest()
    candidate = int.from_bytes(digest, "little") % size
    while candidate in tried:
        candidate = (candidate + 1) % size
    return candidate


class UnreadableImages:
    """Counts the distinct unreadable files that a run has met and stops it above a stated share of the set.

    `size` is the number of images in the set; `limit_share`, from 0 to 1, is `data.max_unreadable`: at 0 the
    first bad file stops the run, at 1 none does.
    """

    def __init__(self, size: int, limit_share: float):
        if not 0 <= limit_share <= 1:
            raise UserError(f"data.max_unreadable is a share from 0 to 1, not {limit_share}")
        self.size, self.limit_share = size, limit_share
        self.reasons: dict[str, str] = {}  # where -> why, in the order of discovery

    @property
    def count(self) -> int:
        """Distinct bad files so far."""
        return len(self.reasons)

    def add(self, where: str, why: str) -> bool:
        """Notes one failure; True when the file is new, so that the caller names it once.

        Raises:
            UserError: the distinct bad files are now more than `limit_share` of the set.
        """
        new = where not in self.reasons
        self.reasons.setdefault(where, why)
        if self.count > self.limit_share * self.size:
            raise UserError(
                f"{self.summary()}; this is above the limit data.max_unreadable = {self.limit_share:g}: "
                "mend or remove these files, or raise the limit"
            )
        return new

    def summary(self) -> str:
        """One line with count, share and the first few files; empty when every image was readable."""
        if not self.reasons:
            return ""
        named = first_few([f"{where} ({why})" for where, why in self.reasons.items()])
        return f"{self.count} of {self.size} images ({self.count / self.size:.2%}) could not be read: {named}"


def require_same_images(images: ImageSet, *, fingerprint: str, count: int) -> None:
    """Refuses to go on with another set of images than the one a checkpoint was made with.

    Raises:
        UserError: the fingerprint differs from the checkpoint's; says how many images there were and are.
    """
    if images.fingerprint == fingerprint:
        return
    difference = (
        f"{count} then and {len(images)} now"
        if count != len(images)
        else f"{count} as before, but with other names, sizes or contents"
    )
    raise UserError(
        f"the images of {images.name}/{images.split} are not those of the checkpoint ({difference}); "
        "put the old ones back, or begin a new run in another folder"
    )


def require_same_classes(train: ImageSet, test: ImageSet) -> None:
    """Refuses two sets whose labels do not mean the same.

    Raises:
        UserError: the class names differ; names some of those that only one of the two has.
    """
    if train.classes != test.classes:
        raise UserError(
            f"the classes of {train.name}/{train.split} and {test.name}/{test.split} differ "
            f"({class_difference(train.split, train.classes, test.split, test.classes)}); "
            "labels would not mean the same in both"
        )


def class_difference(one: str, its_classes: Sequence[str], other: str, their_classes: Sequence[str]) -> str:
    """In words, what tells two lists of classes apart; empty when they are the same."""
    if tuple(its_classes) == tuple(their_classes):
        return ""
    sides = (one, set(its_classes) - set(their_classes)), (other, set(their_classes) - set(its_classes))
    return (
        "; ".join(f"only {side} has {first_few(sorted(names))}" for side, names in sides if names)
        or "their order"
    )
