"""Features as a parquet file, a row group at a time.

Columns: path (text), of several splits split, width and height (int32), with labels class (text), and
features (a list of D float32). Where a path is not UTF-8, its other bytes are written as \\xff in `path`, and
a column path_bytes holds the bytes of every path as on disk. The metadata of the file holds `record` and
`unreadable`, both JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from siamtransfer.data.containers.columns import import_pyarrow
from siamtransfer.embedding.tables.table import Columns, Missing, Row
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.strict_json import to_json

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES = 2**25  # of features in a row group, about


@contextlib.contextmanager
def parquet_table(out: Path, columns: Columns) -> Iterator[_ParquetTable]:
    """A parquet file that appears under `out` at the end.

    Raises:
        UserError: pyarrow is not installed.
    """
    import_pyarrow()
    with atomic_write(out) as file:
        yield _ParquetTable(file, columns)


class _ParquetTable:
    def __init__(self, file: IO[bytes], columns: Columns):
        self._file, self._columns = file, columns
        self._rows: list[Row] = []
        self._features: list[np.ndarray] = []
        self._writer: Any = None

    def add(self, rows: list[Row], features: np.ndarray) -> None:
        """Keeps n rows with their features float32[n, D], and writes a group where there are enough."""
        self._rows += rows
        self._features.append(features)
        if sum(array.nbytes for array in self._features) >= GROUP_BYTES:
            self._write_group()

    def finish(self, record: dict[str, Any], missing: list[Missing]) -> None:
        """Writes the last group and the metadata."""
        if self._rows:
            self._write_group()
        unreadable = [{"index": image.index, "path": image.path, "why": image.why} for image in missing]
        metadata = {"record": to_json(record), "unreadable": json.dumps(unreadable)}
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()

    def _write_group(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        features = np.concatenate(self._features)
        schema = self._schema(features.shape[1])
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, schema)
        flat = pa.array(features.reshape(-1))
        columns = {
            "path": [_utf8(row.path) for row in self._rows],
            "path_bytes": [os.fsencode(row.path) for row in self._rows],
            "split": [row.split for row in self._rows],
            "width": [row.width for row in self._rows],
            "height": [row.height for row in self._rows],
            "class": [_utf8(row.class_name or "") for row in self._rows],
            "features": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
        }
        arrays = {name: columns[name] for name in schema.names}
        self._writer.write_table(pa.table(arrays, schema=schema), row_group_size=len(self._rows))
        self._rows, self._features = [], []

    def _schema(self, dim: int) -> pa.Schema:
        import pyarrow as pa

        columns = self._columns
        fields: list[tuple[str, pa.DataType]] = [
            ("path", pa.string()),
            *([] if columns.plain_names else [("path_bytes", pa.binary())]),
            *([("split", pa.string())] if columns.several_splits else []),
            *(("width", pa.int32()), ("height", pa.int32())),
            *([("class", pa.string())] if columns.classes is not None else []),
            ("features", pa.list_(pa.float32(), dim)),
        ]
        return pa.schema(fields)


def _utf8(text: str) -> str:
    """The text with bytes that are not UTF-8 written as \\xff."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
