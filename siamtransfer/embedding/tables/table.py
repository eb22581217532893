"""What the tables of features share: rows, columns, and what is done with them.

Legend: n rows of a piece, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Row:
    """What is known of an image beside its features.

    Attributes:
        index: its position in the listing of the source, from 0; unreadable images have one, too.
        path: see `siamtransfer.embedding.sources.Part.path`.
        split, label, class_name: None where the source has one split, or no labels; of several labels an
            image `label` is the row int64[C] of 0 and 1.
        width, height: in pixels, as the image is shown.
    """

    index: int
    path: str
    width: int
    height: int
    split: str | None = None
    label: Any = None
    class_name: str | None = None


@dataclass(frozen=True)
class Missing:
    """An image of the listing that has no row, because it cannot be read."""

    index: int
    path: str
    why: str


@dataclass(frozen=True)
class Columns:
    """What a table has beside paths, sizes and features.

    Attributes:
        several_splits: whether there is a column of splits.
        classes: the names of the classes; None without labels.
        plain_names: whether every path is UTF-8.
        longest: the length in characters of the longest path.
    """

    several_splits: bool
    classes: tuple[str, ...] | None
    plain_names: bool
    longest: int


class Table(Protocol):
    """A table that is being written."""

    def add(self, rows: list[Row], features: np.ndarray) -> None:
        """Writes n rows with their features float32[n, D]."""

    def finish(self, record: dict[str, Any], missing: list[Missing]) -> None:
        """Writes what is known at the end: the record, and the images that have no row."""
