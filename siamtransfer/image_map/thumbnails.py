"""Small square pictures of many images, in sheets that a page can hold.

Legend: N images; a picture is uint8[side,side,3].
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from siamtransfer.data.imageset import ImageSet
from siamtransfer.evaluation.dense.sheet import in_colours
from siamtransfer.image_map.config import LARGEST_SIDE, SMALLEST_SIDE
from siamtransfer.image_map.image_map import Thumbnails
from siamtransfer.utils.workers import worker_init

SIDES = ((500, 128), (2000, 96), (4000, 64), (12_000, 48), (50_000, 32))
"""Up to how many images a thumbnail has which side in pixels: whole blocks of WebP, which are 16 wide, so
that no picture shines into the next."""
QUALITIES = (80, 65, 50, 35)  # of WebP, the first that fits
MOST_BYTES = 4 * 2**20  # of all sheets; a page holds them as text, which takes a third more
PER_SHEET = 4096  # thumbnails of a sheet, which a browser decodes as one picture
_BATCH = 64


def side_for(count: int) -> int:
    """The side of thumbnails in pixels for so many images."""
    return next((side for most, side in SIDES if count <= most), SIDES[-1][1])


def make_thumbnails(images: ImageSet, side: int | None = None, *, workers: int = 0) -> Thumbnails:
    """The middle square of every image, resized to `side` pixels: its first three channels in colour, or its
    first in grey. None is `side_for` so many, not more than squares of one size have, and half of that where
    the sheets take more than MOST_BYTES at the lowest quality.

    Raises:
        UnreadableImage: an image cannot be read.
    """
    smallest = SMALLEST_SIDE if side is None else side
    if side is None:
        side = min(side_for(len(images)), images.image_size or LARGEST_SIDE)
    columns = max(1, int(np.ceil(np.sqrt(min(len(images), PER_SHEET)))))
    sheets = [Image.fromarray(sheet) for sheet in _sheets(images, side, columns, workers)]
    while True:
        for quality in QUALITIES:
            encoded = tuple(_encode(sheet, quality) for sheet in sheets)
            if sum(map(len, encoded)) <= MOST_BYTES:
                return Thumbnails(encoded, side, columns, PER_SHEET)
        if side % 2 or side // 2 < smallest:
            return Thumbnails(encoded, side, columns, PER_SHEET)
        side //= 2
        sheets = [sheet.reduce(2) for sheet in sheets]


def _sheets(images: ImageSet, side: int, columns: int, workers: int) -> Iterator[np.ndarray]:
    """The sheets uint8[H,W,3], of as many rows as they need."""
    loader = DataLoader(
        _Squares(images, side),
        batch_size=_BATCH,
        num_workers=workers,
        collate_fn=np.stack,
        worker_init_fn=worker_init() if workers else None,
    )
    pictures = (picture for batch in loader for picture in batch)
    for begin in range(0, len(images), PER_SHEET):
        count = min(PER_SHEET, len(images) - begin)
        rows = -(-count // columns)
        sheet = np.zeros((rows, columns, side, side, 3), np.uint8)
        for number in range(count):
            sheet[divmod(number, columns)] = next(pictures)
        yield sheet.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3)


def _encode(sheet: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    sheet.save(file, format="WebP", quality=quality, method=4)
    return file.getvalue()


class _Squares(Dataset[np.ndarray]):
    """The middle squares of images, uint8[side,side,3]."""

    def __init__(self, images: ImageSet, side: int):
        self.images, self.side = images, side

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> np.ndarray:
        pixels = in_colours(self.images.image(row))
        height, width = pixels.shape[:2]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        box = (left, top, left + short, top + short)
        resized = Image.fromarray(np.ascontiguousarray(pixels)).resize(
            (self.side, self.side),
            Image.Resampling.BOX if short >= self.side else Image.Resampling.NEAREST,
            box,
        )
        return np.asarray(resized)
