"""Features as an .npz that NumPy and the evaluators read, written in bounded memory.

Arrays: `features` float32[n, D], uncompressed, so that it can be mapped; `paths` text[n]; `width`, `height`
and `index` int64[n]; with labels `labels` int64[n] (or int64[n, C] of 0 and 1) and `classes` text[C]; of
several splits `split` text[n]; `unreadable_index`, `unreadable_paths` and `unreadable_reasons` of the images
that have no row; and `record`, one text of JSON. Bytes of paths that are not UTF-8 are surrogates, which
os.fsencode turns back.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from siamtransfer.embedding.tables.table import Columns, Missing, Row
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.strict_json import to_json

_BLOCK = 2**22  # bytes of features that are copied at once
_PATHS = 4096  # of which one array of characters is made at once


@contextlib.contextmanager
def npz_table(out: Path, columns: Columns) -> Iterator[_NpzTable]:
    """An .npz that appears under `out` at the end.

    The number of rows stands before the features in the file and is known at the end only, so features go to
    a nameless file in the same folder first.
    """
    with atomic_write(out) as file, tempfile.TemporaryFile(dir=out.parent) as features:
        yield _NpzTable(file, features, columns)


class _NpzTable:
    def __init__(self, file: IO[bytes], features: IO[bytes], columns: Columns):
        self._file, self._features, self._columns = file, features, columns
        self._rows: list[Row] = []
        self._dim = 0

    def add(self, rows: list[Row], features: np.ndarray) -> None:
        """Writes n rows with their features float32[n, D]."""
        self._rows += rows
        self._dim = features.shape[1]
        self._features.write(np.ascontiguousarray(features, "<f4").data)

    def finish(self, record: dict[str, Any], missing: list[Missing]) -> None:
        """Writes all arrays."""
        rows, columns = self._rows, self._columns
        with zipfile.ZipFile(self._file, "w") as archive:
            self._write_features(archive)
            if columns.classes is not None:
                _write(archive, "labels", np.array([row.label for row in rows], np.int64))
                _write(archive, "classes", np.array(columns.classes, np.str_))
            _write_texts(archive, "paths", [row.path for row in rows], columns.longest)
            for name in ("width", "height", "index"):
                _write(archive, name, np.array([getattr(row, name) for row in rows], np.int64))
            if columns.several_splits:
                _write(archive, "split", np.array([row.split for row in rows], np.str_))
            _write(archive, "unreadable_index", np.array([image.index for image in missing], np.int64))
            _write(archive, "unreadable_paths", np.array([image.path for image in missing], np.str_))
            _write(archive, "unreadable_reasons", np.array([image.why for image in missing], np.str_))
            _write(archive, "record", np.array(to_json(record)))

    def _write_features(self, archive: zipfile.ZipFile) -> None:
        self._features.seek(0)
        with _member(archive, "features", zipfile.ZIP_STORED) as member:
            _write_header(member, "<f4", (len(self._rows), self._dim))
            shutil.copyfileobj(self._features, member, _BLOCK)


def _write(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with _member(archive, name, zipfile.ZIP_DEFLATED) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _write_texts(archive: zipfile.ZipFile, name: str, texts: list[str], longest: int) -> None:
    """An array of texts, all of which have room for the longest, a few of them at a time."""
    kind = np.dtype(f"<U{max(1, longest)}")
    with _member(archive, name, zipfile.ZIP_DEFLATED) as member:
        _write_header(member, kind.str, (len(texts),))
        for begin in range(0, len(texts), _PATHS):
            member.write(np.array(texts[begin : begin + _PATHS], kind).tobytes())


def _member(archive: zipfile.ZipFile, name: str, method: int) -> IO[bytes]:
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = method
    return archive.open(info, "w", force_zip64=True)


def _write_header(member: IO[bytes], descr: str, shape: tuple[int, ...]) -> None:
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)
