"""Some of the images of a set with masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from siamtransfer.segmentation.data.masked_images import MaskedImages


class ChosenMasks:
    """The images of `images` with the given numbers, in that order (MaskedImages).

    `name` replaces the name of the set; the fingerprint covers the numbers.
    """

    def __init__(self, images: MaskedImages, numbers: Sequence[int], name: str):
        self.images, self.numbers, self.name = images, tuple(numbers), name
        self.split, self.classes, self.ignore = images.split, images.classes, images.ignore
        self.remarks: list[str] = []

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprint of the whole set and the numbers."""
        return _digest(self.images.fingerprint, self.numbers)

    @cached_property
    def content_fingerprint(self) -> str:
        """The same with the whole set's content_fingerprint."""
        return _digest(self.images.content_fingerprint, self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,3]."""
        return self.images.image(self.numbers[index])

    def mask(self, index: int) -> np.ndarray:
        """Its mask, see MaskedImages."""
        return self.images.mask(self.numbers[index])

    def path(self, index: int) -> str | None:
        """Its file; None where there is none."""
        return self.images.path(self.numbers[index])

    def mask_path(self, index: int) -> str | None:
        """The file of its mask; None where there is none."""
        return self.images.mask_path(self.numbers[index])

    def describe(self, index: int) -> str:
        """Where it is from."""
        return self.images.describe(self.numbers[index])


def _digest(fingerprint: str, numbers: Sequence[int]) -> str:
    return hashlib.sha256(f"{fingerprint} {list(numbers)}".encode()).hexdigest()
