"""Features as a CSV, with the record beside it as OUT.json.

Columns: path, of several splits split, width, height, with labels class, then f0, f1 … with nine digits,
which give back every float32. Cells with commas, quotes or line breaks are quoted (RFC 4180). A path that is
not UTF-8 stands there byte for byte as on disk; read such a file with the error handler surrogateescape.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from siamtransfer.embedding.tables.table import Columns, Missing, Row
from siamtransfer.utils.files import atomic_write, write_text
from siamtransfer.utils.strict_json import to_json

BYTES_AS_THEY_ARE = "surrogateescape"


@contextlib.contextmanager
def csv_table(out: Path, columns: Columns) -> Iterator[_CsvTable]:
    """A CSV that appears under `out` at the end, and the record beside it."""
    with atomic_write(out) as file:
        yield _CsvTable(file, out.with_suffix(".json"), columns)


def write_record_beside(table: IO[bytes], path: Path, record: dict[str, Any], missing: list[Missing]) -> None:
    """Writes a record with the images that have no row, as one line of JSON, once all of the table is on the
    disk: where that is full, no record of a table that is not there is left.

    Raises:
        UserError: the record cannot be written.
    """
    table.flush()
    os.fsync(table.fileno())
    unreadable = [{"index": image.index, "path": image.path, "why": image.why} for image in missing]
    write_text(path, f"{to_json({**record, 'unreadable': unreadable})}\n")


class CsvRows:
    """Lines of cells in a binary file, quoted where they need it; a line ends with a line feed."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._line = io.StringIO(newline="")
        # A writer quotes the characters of its own line end only, and a name may hold either of the two.
        self._writer = csv.writer(self._line, lineterminator="\r\n")

    def write(self, cells: list[Any]) -> None:
        """Writes one line."""
        self._writer.writerow(cells)
        line = self._line.getvalue().removesuffix("\r\n")
        self._line.seek(0)
        self._line.truncate()
        self._file.write(f"{line}\n".encode(errors=BYTES_AS_THEY_ARE))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV of any cells; None is an empty cell, and floats have six digits behind the point.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as file:
        table = CsvRows(file)
        table.write(list(header))
        for row in rows:
            table.write([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row])


class _CsvTable:
    def __init__(self, file: IO[bytes], beside: Path, columns: Columns):
        self._file, self._beside, self._columns = file, beside, columns
        self._rows = CsvRows(file)
        self._dim: int | None = None

    def add(self, rows: list[Row], features: np.ndarray) -> None:
        """Writes n rows with their features float32[n, D]."""
        if self._dim is None:
            self._dim = features.shape[1]
            self._rows.write([*self._names, *(f"f{number}" for number in range(self._dim))])
        for row, values in zip(rows, features, strict=True):
            self._rows.write([*self._cells(row), *(f"{value:.9g}" for value in values.tolist())])

    def finish(self, record: dict[str, Any], missing: list[Missing]) -> None:
        """Writes the record, with the images that have no row, into the file beside the table."""
        write_record_beside(self._file, self._beside, record, missing)

    @property
    def _names(self) -> list[str]:
        columns = self._columns
        return [
            "path",
            *(["split"] if columns.several_splits else []),
            *("width", "height"),
            *(["class"] if columns.classes is not None else []),
        ]

    def _cells(self, row: Row) -> list[Any]:
        columns = self._columns
        return [
            row.path,
            *([row.split] if columns.several_splits else []),
            *(row.width, row.height),
            *([row.class_name] if columns.classes is not None else []),
        ]
