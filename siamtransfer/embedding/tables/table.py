"""What the tables of features share: rows, and the choice by the ending of the file.

Legend: n rows of a piece, D features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from siamtransfer.utils.errors import UserError


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


@contextlib.contextmanager
def open_table(out: Path, columns: Columns) -> Iterator[Table]:
    """A table that appears under `out` (.npz, .parquet or .csv) once it is complete.

    Raises:
        UserError: another ending, pyarrow is missing, or the file cannot be written.
    """
    from siamtransfer.embedding.tables.csv_table import csv_table
    from siamtransfer.embedding.tables.npz_table import npz_table
    from siamtransfer.embedding.tables.parquet_table import parquet_table

    kinds: dict[str, Callable[[Path, Columns], contextlib.AbstractContextManager[Table]]]
    kinds = {".npz": npz_table, ".parquet": parquet_table, ".csv": csv_table}
    if out.suffix not in kinds:
        raise UserError(f"{out} must end in {' or '.join(kinds)}")
    with kinds[out.suffix](out, columns) as table:
        yield table
