"""Images of any shape at the size of the network's input, a batch at a time.

Legend: H and W pixels of an image at that size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from siamtransfer.data.folders import FileImages
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.evaluation.retrieval.config import QueryCrop, Resize
from siamtransfer.evaluation.retrieval.ground_truth import Box
from siamtransfer.utils.workers import worker_init

INTERPOLATION = {
    "long": "Lanczos of Pillow's thumbnail, after reduction",
    "square": "bicubic, antialiased (Pillow)",
}


@dataclass(frozen=True)
class Sizing:
    """How an image gets the size of the input: `resize` to `side`, after `crop` to its box; none of its sides
    may then be below `least` pixels."""

    side: int
    resize: Resize
    crop: QueryCrop = "none"
    least: int = 1

    def apply(self, image: np.ndarray, box: Box | None = None) -> np.ndarray:
        """uint8[H, W, 3] of an image uint8[h, w, 3].

        The side of a box that is cut `box` is shortened with its image, as in the benchmark's public code.

        Raises:
            ValueError: the box lies outside of the image, or it becomes too small; the message is the reason.
        """
        picture, side = Image.fromarray(image), float(self.side)
        if box is not None and self.crop != "none":
            whole = max(picture.size)
            if box[0] >= picture.width or box[1] >= picture.height or min(box[2:]) <= 0:
                size = f"{picture.width} x {picture.height}"
                raise ValueError(f"its box {list(box)} lies outside of its {size} pixels")
            left, top, right, bottom = (round(edge) for edge in box)
            if right == left or bottom == top:
                raise ValueError(f"its box {list(box)} has no pixels")
            picture = picture.crop((left, top, right, bottom))
            if self.crop == "box":
                side *= max(picture.size) / whole
        if self.resize == "square":
            picture = picture.resize((self.side, self.side), Image.Resampling.BICUBIC)
        else:
            picture.thumbnail((max(1.0, side), max(1.0, side)), Image.Resampling.LANCZOS)
        if min(picture.size) < self.least:
            raise ValueError(
                f"it becomes {picture.width} x {picture.height} pixels and the network needs {self.least} at "
                "the least of --scales: raise --size or --scales"
            )
        return np.array(picture)


@dataclass(frozen=True)
class Reading:
    """How images are read: `batch` at a time, by `workers` processes; `skip` leaves out unreadable ones."""

    batch: int = 16
    workers: int = 0
    skip: bool = False


def sized_batches(
    images: FileImages,
    indices: Sequence[int],
    sizing: Sizing,
    reading: Reading,
    boxes: Sequence[Box | None] | None = None,
) -> Iterator[list[tuple[int, Tensor]]]:
    """Up to `batch` images uint8[3, H, W] with their indices at a time, in the order of `indices`; skipped
    ones are left out.

    Raises:
        UnreadableImage: an image cannot be read, unless such are skipped, or its box lies outside of it.
    """
    loader = DataLoader(
        _SizedImages(images, indices, sizing, reading.skip, boxes),
        batch_size=reading.batch,
        num_workers=reading.workers,
        collate_fn=list,
        worker_init_fn=worker_init() if reading.workers else None,
    )
    for batch in loader:
        yield [item for item in batch if item is not None]


class _SizedImages(Dataset["tuple[int, Tensor] | None"]):
    """(index, uint8[3, H, W]) of images; None for one that is skipped."""

    def __init__(
        self,
        images: FileImages,
        indices: Sequence[int],
        sizing: Sizing,
        skip: bool,
        boxes: Sequence[Box | None] | None,
    ):
        self.images, self.indices, self.sizing, self.skip, self.boxes = images, indices, sizing, skip, boxes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> tuple[int, Tensor] | None:
        index = self.indices[row]
        try:
            pixels = self.sizing.apply(self.images.image(index), self.boxes[index] if self.boxes else None)
        except UnreadableImage:
            if self.skip:
                return None
            raise
        except ValueError as error:
            raise UnreadableImage(self.images.describe(index), str(error)) from error
        return index, torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
