"""The contract of a set of images, sets in memory, and checks that two sets are the same.

Legend: N images, H and W pixels, C channels; an image is uint8[H,W,C], rows first, C-contiguous. As a rule C
is 3 and an image is RGB; a set of another number has the attribute `channels` (see `channels_of`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from siamtransfer.data.class_names import in_order
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few

ROWS_AT_A_TIME = 4096  # hashed in chunks, since a view with other strides has to be copied first


class ImageSet(Protocol):
    """N images in a fixed order; a label each, or none at all."""

    @property
    def name(self) -> str:
        """The name by which the set was opened, for example `cifar10`."""

    @property
    def split(self) -> str:
        """The split of the set, for example `train`."""

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
        """SHA-256 in hexadecimal; the same for the same images in any folder."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,C]; raises UnreadableImage."""

    def describe(self, index: int) -> str:
        """The origin of image `index`: its path, or for example `cifar10/train[17]`."""


class ArrayImages:
    """Images of one size in memory, as an ImageSet.

    `pixels` is uint8[N,H,W,C], or uint8[N,H,W] for grey images, whose value is repeated into three channels
    when an image is read, or stays one with `channels` 1. The fingerprint covers pixels, labels and class
    names.
    """

    def __init__(
        self,
        name: str,
        split: str,
        pixels: np.ndarray,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
        channels: int | None = None,
    ):
        self.name, self.split, self.classes = name, split, tuple(classes)
        self.pixels = pixels
        self.channels = channels or (3 if pixels.ndim == 3 else int(pixels.shape[3]))
        self.labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        height, width = pixels.shape[1:3]
        self.image_size = int(height) if height == width else None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels and class names, and where grey stays one channel, that."""
        grey = "\n1 channels" if self.channels == 1 and self.pixels.ndim == 3 else ""
        return fingerprint_of_arrays(self.pixels, self.labels, text="\n".join(self.classes) + grey)

    def keep_channels(self, channels: int) -> None:
        """Reads grey images as one channel, or as three.

        Raises:
            UserError: it is another number than these, or than that of images that have channels.
        """
        possible = (1, 3) if self.pixels.ndim == 3 else (self.channels,)
        if channels not in possible:
            raise UserError(
                f"data.channels is {channels}, and the images of {self.name} have {possible[0]} channel"
                f"{'s' * (possible[0] != 1)}: say {' or '.join(map(str, possible))}, or leave it out"
            )
        self.channels = channels

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,C], a copy that may be written to."""
        pixels = self.pixels[index]
        if pixels.ndim == 2:
            return np.repeat(pixels[..., None], self.channels, axis=2)
        return np.array(pixels, order="C")

    def describe(self, index: int) -> str:
        """For example `cifar10/train[17]`."""
        return f"{self.name}/{self.split}[{index}]"


def channels_of(images: object) -> int:
    """The channels of the images of a set; 3 where it does not say."""
    return int(getattr(images, "channels", 3))


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


def content_fingerprint(images: ImageSet) -> str:
    """What the features of a set depend on: it changes whenever the pixels of an image may have changed.

    A fingerprint answers another question: is this the set that a checkpoint or a record names, in whatever
    folder? That of image files covers their sizes alone, since a run has to go on with a copy of its set and
    without reading all of it. So the key of a cache takes this one: over the bytes of the files or, of a
    large set, over the times of their last changes. The fingerprint of any other set covers its pixels.
    """
    return str(getattr(images, "content_fingerprint", images.fingerprint))


def require_same_images(images: ImageSet, *, fingerprint: str, count: int, hint: str = "") -> None:
    """Checks that a set of images is the one that a checkpoint was trained on; `hint` says why it may not be.

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
    if in_order(images.classes) != sorted(images.classes):
        difference += (
            "; folders that are numbers are sorted as numbers, and older versions sorted them as text"
        )
    raise UserError(
        f"the images of {images.name}/{images.split} are not those of the checkpoint ({difference}{hint}); "
        "put the old ones back, or begin a new run in another folder"
    )


def require_same_classes(train: ImageSet, test: ImageSet) -> None:
    """Checks that the labels of two sets mean the same.

    Raises:
        UserError: the class names differ; names some of those that only one of the two has.
    """
    if train.classes != test.classes:
        raise UserError(
            f"the classes of {train.name}/{train.split} and {test.name}/{test.split} differ "
            f"({class_difference(train.split, train.classes, test.split, test.classes)}); "
            "labels would not mean the same in both"
        )


def class_difference(
    split: str, classes: Sequence[str], other_split: str, other_classes: Sequence[str]
) -> str:
    """The difference between the classes of two splits in words; empty when there is none."""
    if tuple(classes) == tuple(other_classes):
        return ""
    sides = (split, set(classes) - set(other_classes)), (other_split, set(other_classes) - set(classes))
    return (
        "; ".join(f"only {name} has {first_few(sorted(names))}" for name, names in sides if names)
        or "their order"
    )
