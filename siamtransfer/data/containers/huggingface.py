"""Data sets that Hugging Face's `datasets` wrote by `save_to_disk`, mapped from their Arrow files.

The folder holds `state.json`, which names the Arrow files, and `dataset_info.json`, which describes the
columns; of several splits, `dataset_dict.json` names the folders of such. pyarrow reads them; `datasets` is
not needed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siamtransfer.data.containers.columns import find_columns, import_pyarrow, labels_of
from siamtransfer.data.containers.contained import ContainedImages, require_ordinary
from siamtransfer.data.containers.parquet import bytes_of, explain_arrow, names_of_rows
from siamtransfer.data.parts import choose_part, named_parts, split_name
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS_FILE, STATE_FILE, INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"


class HuggingFaceImages(ContainedImages):
    """The images of a split of a data set on disk, in the order of its rows.

    Raises:
        UserError: no such folder or split, pyarrow is not installed, a file is missing or damaged, a
            selection of rows that was not written out, no column of images, or labels that are none.
    """

    def __init__(self, root: str | Path, split: str = "train", *, name: str = "huggingface"):
        import_pyarrow()
        folder, split = _folder_of_split(Path(root).expanduser().absolute(), split)
        files = _arrow_files(folder)
        info = _read_json(folder / INFO_FILE) if (folder / INFO_FILE).exists() else {}
        tables = [_map_table(path) for path in files]
        self._columns = find_columns(tables[0].schema, info.get("features"), str(folder))
        for path, table in zip(files, tables, strict=True):
            if not table.schema.equals(tables[0].schema):
                raise UserError(
                    f"{printable(files[0])} and {printable(path)} have different columns; write the set again"
                )
        self._ends = np.cumsum([len(table) for table in tables])
        rows = int(self._ends[-1])
        if not rows:
            raise UserError(f"there are no rows in {printable(folder)}; check the path")
        labels, classes = None, list[str]()
        images = _joined(tables, self._columns.image)
        with explain_arrow(files[0]):
            if self._columns.label is not None:
                labels, classes = labels_of(_joined(tables, self._columns.label), self._columns, str(folder))
            names = names_of_rows(_paths(images) if self._columns.has_path else None, rows)
        sizes = _sizes(images, nested=self._columns.nested)
        super().__init__(name, split, files, names, sizes, labels=labels, classes=classes)
        self._owner, self._open = os.getpid(), dict[int, "_Rows"]()

    def container_of(self, index: int) -> int:
        """The position in `containers` of the file that holds image `index`."""
        return int(np.searchsorted(self._ends, index, side="right"))

    def encoded(self, index: int) -> bytes:
        """The bytes of image `index`; raises UnreadableImage."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        if self._owner != os.getpid():
            self._owner, self._open = os.getpid(), {}
        number = self.container_of(index)
        first = int(self._ends[number - 1]) if number else 0
        try:
            if number not in self._open:
                self._open[number] = _Rows(
                    _map_table(Path(self.containers[number])).column(self._columns.image)
                )
            value = self._open[number][index - first]
        except UserError as error:
            raise UnreadableImage(self.describe(index), f"its file is damaged ({error})") from error
        return bytes_of(value, self.describe(index))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_owner": -1, "_open": {}}


class _Rows:
    """Rows of a column in chunks; pyarrow's own access looks at every chunk before the row's."""

    def __init__(self, column: pa.ChunkedArray):
        self._chunks = column.chunks
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])

    def __getitem__(self, row: int) -> pa.Scalar:
        chunk = int(np.searchsorted(self._ends, row, side="right"))
        return self._chunks[chunk][row - (int(self._ends[chunk - 1]) if chunk else 0)]


def splits_of_huggingface(root: Path) -> list[str]:
    """The splits of a data set on disk that are parts; none where it has no splits."""
    if not (root / SPLITS_FILE).exists():
        return []
    return [split_name(name, part) for part, name in named_parts(_splits(root), printable(root)).items()]


def _splits(root: Path) -> list[str]:
    splits = _read_json(root / SPLITS_FILE).get("splits")
    return [str(name) for name in splits] if isinstance(splits, list) else []


def _folder_of_split(root: Path, split: str) -> tuple[Path, str]:
    if (root / SPLITS_FILE).exists():
        splits = _splits(root)
        if split in splits:
            return root / split, split
        parts = named_parts(splits, printable(root))
        part = choose_part(parts, split)
        if part is not None:
            return root / parts[part], split_name(parts[part], part)
        raise UserError(f"{printable(root)} has no split {split}; its splits are {', '.join(splits)}")
    if (root / STATE_FILE).exists():
        if split != "train":
            raise UserError(f"{printable(root)} holds one split, which is train, and no {split}")
        return root, split
    raise UserError(
        f"{printable(root)} holds no {SPLITS_FILE} and no {STATE_FILE}, which save_to_disk of Hugging Face's "
        "datasets writes; give the folder that it wrote with --data.root"
    )


def _arrow_files(folder: Path) -> list[Path]:
    state = _read_json(folder / STATE_FILE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(
            f"{printable(folder)} is a selection of rows that was not written out; call flatten_indices() "
            "before save_to_disk()"
        )
    try:
        files = [folder / str(entry["filename"]) for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{printable(folder / STATE_FILE)} names no Arrow files; write the set again"
        ) from error
    for path in files:
        require_ordinary(path)
    if missing := [path for path in files if not path.is_file()]:
        raise UserError(
            f"{printable(missing[0])} is missing, which {STATE_FILE} beside it names; copy it again"
        )
    if not files:
        raise UserError(f"there are no rows in {printable(folder)}; check the path")
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{printable(path)} is missing or damaged ({error}); write the set again") from error
    if not isinstance(content, dict):
        raise UserError(f"{printable(path)} is no JSON object; write the set again")
    return content


def _map_table(path: Path) -> pa.Table:
    """An Arrow file as a table whose bytes stay in the file."""
    import pyarrow as pa

    with explain_arrow(path):
        source = pa.memory_map(str(path))
        try:
            return pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(source).read_all()


def _joined(tables: list[pa.Table], column: str) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([chunk for table in tables for chunk in table.column(column).chunks])


def _paths(images: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column of images without its bytes."""
    import pyarrow as pa

    chunks = [pa.StructArray.from_arrays([chunk.field("path")], ["path"]) for chunk in images.chunks]
    return pa.chunked_array(chunks)


def _sizes(images: pa.ChunkedArray, *, nested: bool) -> np.ndarray:
    """int64[N]: the bytes of each image, 0 where a row has none; the images themselves are not read."""
    import pyarrow.compute as pc

    sizes = [
        pc.fill_null(pc.binary_length(chunk.field("bytes") if nested else chunk), 0).to_numpy(
            zero_copy_only=False
        )
        for chunk in images.chunks
    ]
    return np.concatenate(sizes).astype(np.int64)
