"""Sets of images with masks made from Python objects: arrays, PIL images, paths.

Legend: N images, H and W pixels, C classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from siamtransfer.data.from_objects import from_array, from_images
from siamtransfer.data.imageset import ImageSet, fingerprint_of_arrays
from siamtransfer.segmentation.data.class_values import VALUES, ClassValues, numbered
from siamtransfer.segmentation.data.masked_images import IGNORE
from siamtransfer.segmentation.data.read_mask import read_mask
from siamtransfer.utils.errors import UserError

Picture = np.ndarray | Image.Image | str | Path
_ONE_NUMBER = ("P", "L", "1", "I", "I;16")  # modes of PIL with one number a pixel


def from_masks(
    images: np.ndarray | Sequence[Picture],
    masks: np.ndarray | Sequence[Picture],
    classes: Sequence[str],
    *,
    ignore: int = IGNORE,
    name: str = "masks",
    split: str = "train",
) -> ObjectMasks:
    """A set of images with masks (MaskedImages) from objects in memory or from paths.

    Args:
        images: uint8[N,H,W,3], or a sequence of such arrays, PIL images or paths.
        masks: integers[N,H,W], or a sequence of integers[H,W], PIL images with a palette or grey, or paths:
            a class from 0 to C - 1, or `ignore`, for every pixel.
        classes: C names.
        name: of the set, for messages and records.
        split: its part, likewise.

    Raises:
        UserError: there is no image, there are other numbers of images and masks, or a class is named twice.
    """
    if len(images) != len(masks):
        raise UserError(f"{len(images)} images and {len(masks)} masks were given; every image needs one mask")
    if isinstance(images, np.ndarray):
        pictures = from_array(images)
    else:
        opened = [Image.fromarray(i) if isinstance(i, np.ndarray) else i for i in images]
        pictures = from_images(opened)
    if len(set(classes)) < len(classes) or not classes:
        raise UserError("the classes must be names, each of them once; give at least one")
    if not 0 <= ignore < VALUES or ignore < len(classes):
        raise UserError(
            f"ignore is {ignore}, but must be a value of no class, {len(classes)} to {VALUES - 1}"
        )
    return ObjectMasks(name, split, pictures, masks, numbered(classes, [ignore]))


class ObjectMasks:
    """See `from_masks`."""

    def __init__(
        self,
        name: str,
        split: str,
        images: ImageSet,
        masks: np.ndarray | Sequence[Picture],
        values: ClassValues,
    ):
        self.name, self.split, self.values = name, split, values
        self.classes, self.ignore = values.classes, values.ignore
        self.remarks: list[str] = []
        self._images, self._masks = images, masks

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the pixels of all images and masks and the classes; reads all of them once."""
        parts = [self.values.digest, self._images.fingerprint]
        parts += [fingerprint_of_arrays(self.mask(index)) for index in range(len(self))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def content_fingerprint(self) -> str:
        """The fingerprint, which covers every pixel."""
        return self.fingerprint

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,3]; raises UnreadableImage."""
        return self._images.image(index)

    def mask(self, index: int) -> np.ndarray:
        """The mask of image `index`: class numbers and `ignore`; raises UserError, see MaskedImages."""
        where = f"the mask {self.mask_path(index) or f'{self.name}/{self.split}[{index}]'}"
        return self.values.apply(_values(self._masks[index], where), where)

    def path(self, index: int) -> str | None:
        """None: an image need be no file."""
        return None

    def mask_path(self, index: int) -> str | None:
        """The file of its mask; None where it is an object in memory."""
        mask = self._masks[index]
        return os.fspath(mask) if isinstance(mask, str | Path) else None

    def describe(self, index: int) -> str:
        """The origin of image `index`, such as its path."""
        return self._images.describe(index)


def _values(mask: Picture, where: str) -> np.ndarray:
    """uint8[H,W] or uint16[H,W] of a mask; `where` names it in messages."""
    if isinstance(mask, str | Path):
        return read_mask(os.fspath(mask))
    if isinstance(mask, Image.Image) and mask.mode not in _ONE_NUMBER:
        raise UserError(f"{where} is a PIL image of mode {mask.mode}, not one number a pixel; give P or L")
    values = np.asarray(mask)
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise UserError(f"{where} is {values.dtype}{list(values.shape)}; integers[H,W] are needed")
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < VALUES:
        raise UserError(f"{where} holds values outside 0 to {VALUES - 1}; give class numbers")
    return values if values.dtype == np.uint8 else values.astype(np.uint16)
