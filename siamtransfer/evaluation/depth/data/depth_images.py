"""The contract of a set of images with a depth map each.

Legend: H and W pixels.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from siamtransfer.utils.errors import UserError


class DepthImages(Protocol):
    """Images in a fixed order, each with a depth map of the same size.

    Attributes:
        name: by which the set was opened, such as `nyu`.
        split: such as `train`.
        remarks: what a user should know about the set, a sentence each.
        fingerprint: SHA-256 in hexadecimal; the same for the same set in any folder.
    """

    name: str
    split: str
    remarks: list[str]

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H, W, 3]; raises UnreadableImage."""

    def depth(self, index: int) -> np.ndarray:
        """The depth map of image `index`, float32[H, W] in metres; 0 where it is missing.

        Raises:
            UserError: it cannot be read as a depth map; names the file.
        """

    def describe(self, index: int) -> str:
        """The origin of image `index`: its path, or for example `depth-rooms/train[17]`."""

    def describe_depth(self, index: int) -> str:
        """The same of its depth map."""


class MirroredImages:
    """The images of a set, left and right exchanged."""

    def __init__(self, images: DepthImages):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> np.ndarray:
        """Image `index`, mirrored."""
        return np.ascontiguousarray(self._images.image(index)[:, ::-1])

    def describe(self, index: int) -> str:
        """The origin of the image."""
        return self._images.describe(index)


def read_pair(images: DepthImages, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and depth map `index`.

    Raises:
        UserError: one of the two cannot be read, or their sizes differ; names the files.
    """
    image, depth = images.image(index), images.depth(index)
    if image.shape[:2] != depth.shape:
        raise UserError(
            size_mismatch(images.describe(index), image.shape[:2], images.describe_depth(index), depth.shape)
        )
    return image, depth


def size_mismatch(image: str, image_size: tuple[int, ...], depth: str, depth_size: tuple[int, ...]) -> str:
    """The sentence about an image and a depth map of different sizes (H, W)."""
    return (
        f"{image} has {image_size[1]} x {image_size[0]} pixels and the depth map {depth} has "
        f"{depth_size[1]} x {depth_size[0]}; make the depth map anew at the size of the image"
    )
