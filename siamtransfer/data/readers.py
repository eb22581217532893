"""Ways to read an image by its index, as a data-loader worker calls them.

Pretraining may use another image in place of an unreadable one. An evaluation may not: it stops there, or
leaves the image out.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.pairs import PairImages
from siamtransfer.data.unreadable import BadImage, UnreadableImage, read_or_replace


class IndexedImages(Protocol):
    """What a strict reader needs of an image set."""

    def image(self, index: int) -> np.ndarray: ...


class ReplacingReader:
    """Reads image `index`, uint8[H, W, C]. Another image of the set replaces one that cannot be read.

    The replacement is a function of the index alone. The second result lists (where, why) of every image that
    could not be read on the way; it is empty as a rule.
    """

    def __init__(self, images: ImageSet):
        self.images = images

    def __call__(self, index: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
        image, _, failures = read_or_replace(self.images, index)
        return image, [(failure.where, failure.why) for failure in failures]


class ReplacingRowReader:
    """Reads row `index` of pairs, an image of each column; as `ReplacingReader`, of whole rows."""

    def __init__(self, pairs: PairImages):
        self.pairs = pairs

    def __call__(self, index: int) -> tuple[list[np.ndarray], list[tuple[str, str]]]:
        row, _, failures = read_or_replace(_Rows(self.pairs), index)
        return row, [(failure.where, failure.why) for failure in failures]


class _Rows:
    """The rows of pairs, as `read_or_replace` reads them."""

    def __init__(self, pairs: PairImages):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> list[np.ndarray]:
        return self.pairs.row(index)


class StrictReader:
    """Reads image `index`, uint8[H, W, C]. An unreadable image raises UnreadableImage."""

    def __init__(self, images: IndexedImages):
        self.images = images

    def __call__(self, index: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
        return self.images.image(index), []


class ReportingReader:
    """Reads image `index`, uint8[H, W, C]; of an unreadable one it returns what is wrong with it."""

    def __init__(self, images: IndexedImages):
        self.images = images

    def __call__(self, index: int) -> np.ndarray | BadImage:
        try:
            return self.images.image(index)
        except UnreadableImage as failure:
            return BadImage(index, failure.where, failure.why)
