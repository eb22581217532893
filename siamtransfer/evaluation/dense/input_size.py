"""Images at the size at which a network sees them, in batches.

Legend: H and W pixels of an image, h and w of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.evaluation.dense.config import DenseConfig
from siamtransfer.utils.errors import UserError

MOST_PIXELS = 2**24
"""Pixels of an input that a network sees at once: 65,536 patches of 16 x 16."""
SCORED_SPLITS = ("val", "test")
"""The splits that are scored, the first that a set has."""


class ShownImages(Protocol):
    """What is needed of a set of images."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray: ...

    def describe(self, index: int) -> str: ...


@dataclass(frozen=True)
class InputSize:
    """The size in pixels at which the network sees an image.

    Attributes:
        side: of the square, or of the shorter side; a multiple of `multiple` in the square.
        square: whether every image becomes a square.
        multiple: both sides are multiples of this.
    """

    side: int
    square: bool
    multiple: int

    def of(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the input for an image of these sides."""
        if self.square:
            return self.side, self.side
        scale = self.side / min(height, width)
        return self._round(height * scale), self._round(width * scale)

    def _round(self, length: float) -> int:
        return max(1, round(length / self.multiple)) * self.multiple


def choose_input_size(
    options: DenseConfig, multiple: int, only: tuple[int, int] | None, name: str, default: int
) -> InputSize:
    """The size that --size and --resize ask for, a square's rounded to a multiple of a patch.

    Args:
        multiple: the side of a patch of the network `name`.
        only: height and width of the only images that it takes; None where it takes any.
        default: the side where --size is not given.

    Raises:
        UserError: the network takes images of another size only.
    """
    square = options.resize == "square"
    if only is not None:
        if not square or options.size not in (None, only[0]) or only[0] != only[1]:
            raise UserError(
                f"{name} takes images of {only[0]} x {only[1]} pixels only: leave --size and --resize out"
            )
        return InputSize(only[0], True, multiple)
    side = options.size or default
    return InputSize(max(1, round(side / multiple)) * multiple if square else side, square, multiple)


def to_input(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """uint8[3, h, w] of an image uint8[H, W, 3], resized with antialiased bilinear interpolation."""
    pixels = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)
    if tuple(pixels.shape[1:]) == size:
        return pixels.contiguous()
    resized: Tensor = functional.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)
    return resized[0].contiguous()


def batches(
    images: ShownImages, indices: Sequence[int], size: InputSize, batch: int
) -> Iterator[tuple[list[int], list[tuple[int, int]], Tensor]]:
    """(indices, sizes (H, W) of the images, inputs uint8[b, 3, h, w]) of up to `batch` images at a time, in
    their order; inputs of one batch have one size.

    Raises:
        UnreadableImage: an image cannot be read.
        UserError: an input has more than MOST_PIXELS.
    """
    waiting: list[tuple[int, tuple[int, int], Tensor]] = []
    for index in indices:
        image = images.image(index)
        height, width = image.shape[:2]
        rows, columns = size.of(height, width)
        if rows * columns > MOST_PIXELS:
            raise UserError(
                f"{images.describe(index)} has {width} x {height} pixels and would be seen at {columns} x "
                f"{rows}, more than {MOST_PIXELS:,} pixels at once: lower --size, take --resize square, or "
                "leave the image out"
            )
        pixels = to_input(image, (rows, columns))
        if waiting and (len(waiting) == batch or waiting[0][2].shape != pixels.shape):
            yield _stack(waiting)
            waiting = []
        waiting.append((index, (height, width), pixels))
    if waiting:
        yield _stack(waiting)


def _stack(
    waiting: list[tuple[int, tuple[int, int], Tensor]],
) -> tuple[list[int], list[tuple[int, int]], Tensor]:
    indices, sizes, pixels = zip(*waiting, strict=True)
    return list(indices), list(sizes), torch.stack(pixels)


def spread(available: int, count: int) -> list[int]:
    """Up to `count` of the numbers below `available`, at equal distances."""
    return np.linspace(0, available - 1, min(count, available)).round().astype(int).tolist()
