"""Parquet files with a column of images.

A parquet file is read a row group at a time: for one image a whole group of them is read and decoded. Each
process keeps the last group, which serves reading in order; reading at random costs the group every time.
`siamtransfer pack` makes shards, where any image is read by itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siamtransfer.data.containers.columns import Columns, find_columns, import_pyarrow, labels_of
from siamtransfer.data.containers.contained import ContainedImages, require_ordinary
from siamtransfer.data.containers.splits import find_files
from siamtransfer.data.listing import PathTable
from siamtransfer.data.parts import PartsOption
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import printable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

LARGE_GROUP = 16 << 20  # bytes of images in a row group, above which reading at random is remarked


class ParquetImages(ContainedImages):
    """The images of the parquet files of a split: files by name, rows in order.

    `sizes` is int64[G, 2] over row groups, their rows and the bytes of their images, which the files' footers
    say; the size of each image would take a reading of all.

    Raises:
        UserError: no such file or split, pyarrow is not installed, a file is damaged, there is no column of
            images, files with different columns, or labels that are none.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, name: str = "parquet", parts: PartsOption = "auto"
    ):
        import_pyarrow()
        files, split = find_files(root, split, ".parquet", "parquet files", parts)
        where = printable(files[0].parent if len(files) > 1 else files[0])
        table, groups, self._columns = _read_footers(files)
        rows = groups[:, 1]
        if not rows.sum():
            raise UserError(f"there are no rows in {where}; check the path")
        labels, classes = None, list[str]()
        if self._columns.label is not None:
            with explain_arrow(files[0]):
                labels, classes = labels_of(table.column(self._columns.label), self._columns, where)
        paths = table.column(self._columns.image) if self._columns.has_path else None
        with explain_arrow(files[0]):
            names = names_of_rows(paths, int(rows.sum()))
        super().__init__(name, split, files, names, groups[:, 1:].copy(), labels=labels, classes=classes)
        self._files, self._ends = groups[:, 0].copy(), np.cumsum(rows)
        first_of_file = np.searchsorted(self._files, self._files)
        self._group_in_file = np.arange(len(groups)) - first_of_file
        self._owner, self._open = os.getpid(), dict[int, "pq.ParquetFile"]()
        self._last: tuple[int, Any] = (-1, None)
        if (largest := int(groups[:, 2].max())) > LARGE_GROUP:
            say(
                f"remark: to read one image of {where} at random, a row group of {largest >> 20} MiB is "
                "read; siamtransfer pack makes shards, in which it is read by itself"
            )

    def container_of(self, index: int) -> int:
        """The position in `containers` of the file that holds image `index`."""
        return int(self._files[np.searchsorted(self._ends, index, side="right")])

    def encoded(self, index: int) -> bytes:
        """The bytes of image `index`; raises UnreadableImage."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        group = int(np.searchsorted(self._ends, index, side="right"))
        column = self._group(group, index)
        value = column[index - int(self._ends[group] - self.sizes[group, 0])]
        return bytes_of(value, self.describe(index))

    def _group(self, group: int, index: int) -> pa.ChunkedArray:
        """The column of bytes of a row group, the last one of which is kept."""
        if self._owner != os.getpid():
            self._owner, self._open, self._last = os.getpid(), {}, (-1, None)
        if self._last[0] == group:
            return self._last[1]
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = int(self._files[group])
        try:
            if number not in self._open:
                self._open = {
                    number: pq.ParquetFile(self.containers[number], page_checksum_verification=True)
                }
            column = (
                self._open[number]
                .read_row_group(
                    int(self._group_in_file[group]), columns=[self._columns.bytes_column], use_threads=False
                )
                .column(0)
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            why = f"its row group {self._group_in_file[group]} is damaged ({reason})"
            raise UnreadableImage(self.describe(index), why) from error
        self._last = (group, column)
        return column

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_owner": -1, "_open": {}, "_last": (-1, None)}


def names_of_rows(column: pa.ChunkedArray | None, rows: int) -> PathTable:
    """The `path` of every row of a column of images; the row's number where there is none."""
    paths = [row and row["path"] for row in column.to_pylist()] if column is not None else [None] * rows
    named = [
        path if isinstance(path, str | bytes) and path else f"row-{row:08}" for row, path in enumerate(paths)
    ]
    return PathTable("", [os.fsencode(name) for name in named])


def bytes_of(value: pa.Scalar, where: str) -> bytes:
    """The bytes of an image, of a row of the column of images; raises UnreadableImage."""
    row: Any = value.as_py()
    data, path = (row.get("bytes"), row.get("path")) if isinstance(row, dict) else (row, None)
    if data is None:
        raise UnreadableImage(where, "its row holds no bytes" + (" but a path" if path else ""))
    return bytes(data)


@contextlib.contextmanager
def explain_arrow(path: Path) -> Iterator[None]:
    """pyarrow's errors as one sentence that names the file."""
    import pyarrow as pa

    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{printable(path)} is damaged or of another format ({reason}); copy it again"
        ) from error


def _read_footers(files: list[Path]) -> tuple[pa.Table, np.ndarray, Columns]:
    """The light columns of all files, and int64[G, 3] over row groups: the file, rows, bytes of images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, groups, columns = [], [], None
    for number, path in enumerate(files):
        require_ordinary(path)
        with explain_arrow(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = find_columns(file.schema_arrow, None, str(path))
            if columns is not None and found != columns:
                raise UserError(
                    f"{printable(files[0])} and {printable(path)} have different columns or class names; "
                    "make them the same, or leave one out"
                )
            columns = found
            groups += [
                (number, *_rows_and_bytes(file, group, columns)) for group in range(file.num_row_groups)
            ]
            if columns.light_columns:
                tables.append(file.read(columns=columns.light_columns, use_threads=False))
    assert columns is not None
    with explain_arrow(files[0]):
        table = pa.concat_tables(tables) if tables else pa.table({})
    return table, np.array(groups, dtype=np.int64).reshape(-1, 3), columns


def _rows_and_bytes(file: pq.ParquetFile, group: int, columns: Columns) -> tuple[int, int]:
    """The rows of a row group, and the bytes of its images before their compression."""
    metadata = file.metadata.row_group(group)
    schema = file.metadata.schema
    # Other columns are not asked for: pyarrow ends the whole process where what they state is damaged.
    images = [column for column in range(len(schema)) if schema.column(column).path == columns.bytes_column]
    return metadata.num_rows, sum(metadata.column(column).total_uncompressed_size for column in images)
