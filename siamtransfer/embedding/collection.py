"""The readable images of a source with their features, under one numbering.

Legend: n readable images, D features.
"""

from __future__ import annotations

import bisect
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamtransfer.data.imageset import ImageSet
from siamtransfer.embedding.embed import Listing, embed_all
from siamtransfer.embedding.embedder import Embedder
from siamtransfer.embedding.tables.table import Row

READING_THREADS = 8


class Content(NamedTuple):
    """The SHA-256 of what an image is read from, and its length in bytes."""

    digest: bytes
    length: int


@dataclass(frozen=True)
class Collection:
    """The readable images of a listing.

    Attributes:
        listing: all images, also those that cannot be read.
        rows: what is known of each readable image.
        features: float32[n, D] on the CPU.
    """

    listing: Listing
    rows: list[Row]
    features: Tensor

    @classmethod
    def embed(cls, embedder: Embedder, listing: Listing) -> Collection:
        """The features of all images of a listing.

        Raises:
            UserError: none can be read, or another fault of the network or the images.
        """
        rows, features = embed_all(embedder, listing)
        return cls(listing, rows, torch.from_numpy(features))

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> tuple[ImageSet, int]:
        """The set that readable image `row` is in, and its index there."""
        index = self.rows[row].index
        part = bisect.bisect_right(self.listing.offsets, index) - 1
        return self.listing.parts[part].images, index - self.listing.offsets[part]

    def image(self, row: int) -> np.ndarray:
        """Readable image `row` as uint8[H, W, C]; raises UnreadableImage where it no longer is."""
        images, index = self.place(row)
        return images.image(index)

    @cached_property
    def contents(self) -> list[Content]:
        """`content` of every readable image."""
        with ThreadPoolExecutor(READING_THREADS) as pool:
            return list(pool.map(self.content, range(len(self))))

    def content(self, row: int) -> Content:
        """The digest of a readable image's file, or of its pixels where it has no file of its own.

        Raises:
            UnreadableImage: the file can no longer be read.
        """
        images, index = self.place(row)
        encoded = getattr(images, "encoded", None)
        if encoded is not None:
            data = bytes(encoded(index))
            return Content(hashlib.sha256(data).digest(), len(data))
        pixels = np.ascontiguousarray(images.image(index))
        return Content(hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest(), pixels.nbytes)
