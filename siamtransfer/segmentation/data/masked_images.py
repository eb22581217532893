"""The contract of a set of images with a mask each.

Legend: N images, H and W pixels, C classes.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from siamtransfer.utils.errors import UserError

BYTE_CLASSES = 254
"""Up to so many classes a mask is uint8; above, it is uint16."""
IGNORE, WIDE_IGNORE = 255, 2**16 - 1


class MaskedImages(Protocol):
    """N images in a fixed order, each with a mask of the same size.

    Attributes:
        name: by which the set was opened, such as `voc2012`.
        split: such as `train`.
        classes: C names; class c is the value c in a mask.
        ignore: the value of pixels that count nowhere: IGNORE, or WIDE_IGNORE for more than BYTE_CLASSES.
        remarks: what a user should know about the set, a sentence each.
        fingerprint: SHA-256 in hexadecimal; the same for the same set in any folder.
        content_fingerprint: another that changes whenever a pixel may have changed (the key of caches).
    """

    name: str
    split: str
    classes: tuple[str, ...]
    ignore: int
    remarks: list[str]

    @property
    def fingerprint(self) -> str: ...

    @property
    def content_fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,3]; raises UnreadableImage."""

    def mask(self, index: int) -> np.ndarray:
        """The mask of image `index`, uint8[H,W] (or uint16) of class numbers and `ignore`.

        Raises:
            UserError: it cannot be read as a mask, or holds a value that is no class; names the file.
        """

    def path(self, index: int) -> str | None:
        """The file of image `index`; None where there is none."""

    def mask_path(self, index: int) -> str | None:
        """The file of its mask; None where there is none."""

    def describe(self, index: int) -> str:
        """The origin of image `index`: its path, or for example `fashion-scenes/train[17]`."""


def mask_type(classes: int) -> tuple[type[np.uint8] | type[np.uint16], int]:
    """The type of masks of C classes and the value of their ignored pixels.

    Raises:
        UserError: 16 bits do not hold so many classes.
    """
    if classes >= WIDE_IGNORE:
        raise UserError(f"a mask holds up to {WIDE_IGNORE - 1} classes, not {classes}; leave some out")
    return (np.uint8, IGNORE) if classes <= BYTE_CLASSES else (np.uint16, WIDE_IGNORE)


def read_pair(images: MaskedImages, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask `index`.

    Raises:
        UserError: one of the two cannot be read, or their sizes differ; names the files.
    """
    image, mask = images.image(index), images.mask(index)
    if image.shape[:2] != mask.shape:
        where = images.mask_path(index) or "its mask"
        raise UserError(size_mismatch(images.describe(index), image.shape[:2], where, mask.shape))
    return image, mask


def size_mismatch(
    image: str, image_size: tuple[int, ...], mask: str, mask_size: tuple[int, ...], rotated: bool = False
) -> str:
    """The sentence about an image and a mask of different sizes (H, W); `rotated` says that the image has an
    EXIF orientation that swaps height and width."""
    (height, width), (mask_height, mask_width) = image_size, mask_size
    sizes = f"{image} has {width} x {height} pixels and {mask} has {mask_width} x {mask_height}"
    if (height, width) == (mask_width, mask_height):
        turned = (
            "the image has an EXIF rotation, which is not applied" if rotated else "one of the two is turned"
        )
        return f"{sizes}: {turned}; store the image with its pixels turned, so that both have one orientation"
    return f"{sizes}; make the mask anew at the size of the image"
