"""The table of features that the ending of a file names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from siamtransfer.embedding.tables.csv_table import csv_table
from siamtransfer.embedding.tables.npz_table import npz_table
from siamtransfer.embedding.tables.parquet_table import parquet_table
from siamtransfer.embedding.tables.table import Columns, Table
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable


def open_table(out: Path, columns: Columns) -> contextlib.AbstractContextManager[Table]:
    """A table that appears under `out` (.npz, .parquet or .csv) once it is complete.

    Raises:
        UserError: another ending, pyarrow is missing, or the file cannot be written.
    """
    kinds: dict[str, Callable[[Path, Columns], contextlib.AbstractContextManager[Table]]]
    kinds = {".npz": npz_table, ".parquet": parquet_table, ".csv": csv_table}
    if out.suffix not in kinds:
        raise UserError(f"{printable(out)} must end in {' or '.join(kinds)}")
    return kinds[out.suffix](out, columns)
