"""The file of a map: one .npz of positions, neighbours, thumbnails and names, which runs no code when read.

Legend: N images, K neighbours of each, C classes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.utils.array_files import survey_arrays
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.strict_json import to_json
from siamtransfer.utils.text import printable
from siamtransfer.utils.zip_files import verify_zip

MARK = "image_map"
"""The array that makes an .npz a map; it holds the version."""
VERSION = 1
_SHEET = "sheet"
_HEAD = 30 + len(MARK) + len(".npy")  # bytes of the header of a zip file's first entry, and its name
_SHAPES = {
    "positions": ("N", 2),
    "labels": ("N",),
    "neighbours": ("N", "K"),
    "similarities": ("N", "K"),
    "typicality": ("N",),
    "indices": ("N",),
}
_KINDS = {
    "positions": np.float32,
    "labels": np.int64,
    "neighbours": np.int32,
    "similarities": np.float32,
    "typicality": np.float32,
    "indices": np.int64,
}


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures of N images, square and of one size, side by side in sheets.

    Attributes:
        sheets: WebP files. Image i is in sheet i // per_sheet, there in row r and column c with
            r * columns + c = i % per_sheet, and its square begins at (side * r, side * c).
        side: of a picture in pixels.
        columns: pictures in a row of a sheet.
        per_sheet: pictures in a sheet; the last one may have fewer.
    """

    sheets: tuple[bytes, ...]
    side: int
    columns: int
    per_sheet: int


@dataclass(frozen=True, eq=False)
class ImageMap:
    """Images on a plane.

    Attributes:
        positions: float32[N,2] from 0 to 1, x to the right and y down.
        labels: int64[N], indices into `class_names`; -1 for an image without a label, or with several.
        neighbours: int32[N,K], the images of the map whose features are most like, the nearest first.
        similarities: float32[N,K], the cosines of the features.
        typicality: float32[N], the mean cosine of an image and the others of its class, or all others where
            it has no label; NaN where there is no other.
        indices: int64[N], the places of the images in their set, rising.
        thumbnails: of the images.
        class_names: C names.
        names: N names: paths below the folder of the set, or of sets in memory the split and a number.
        facts: what the map was made of, as JSON can hold it: `backbone` (the provenance of a record),
            `set` (name, split, fingerprint and images), `layout` (method and settings), `features`
            (transform, layers and precision) and `quality` (how far the layout can be trusted).
    """

    positions: np.ndarray
    labels: np.ndarray
    neighbours: np.ndarray
    similarities: np.ndarray
    typicality: np.ndarray
    indices: np.ndarray
    thumbnails: Thumbnails
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_shapes()
        images, classes = len(self.positions), len(self.class_names)
        limits = (
            ("labels", self.labels, -1, classes),
            ("neighbours", self.neighbours, 0, images),
            ("indices", self.indices, 0, np.inf),
        )
        for name, array, low, end in limits:
            if array.size and not (low <= array.min() and array.max() < end):
                raise ValueError(f"has {name} that are none: from {array.min()} to {array.max()}")
        for name in ("positions", "similarities"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"has {name} that are not all finite")
        if len(self.names) != images:
            raise ValueError(f"has {len(self.names)} names of {images} images")
        thumbnails = self.thumbnails
        needed = -(-images // max(1, thumbnails.per_sheet))
        if min(thumbnails.side, thumbnails.columns, thumbnails.per_sheet) < 1 or needed != len(
            thumbnails.sheets
        ):
            raise ValueError(f"has {len(thumbnails.sheets)} sheets of thumbnails for {images} images")

    def _check_shapes(self) -> None:
        sizes: dict[str, int] = {}
        for name, shape in _SHAPES.items():
            array = getattr(self, name)
            fits = array.dtype == _KINDS[name] and array.ndim == len(shape)
            if not fits or not all(
                size == (sizes.setdefault(letter, size) if isinstance(letter, str) else letter)
                for letter, size in zip(shape, array.shape, strict=True)
            ):
                raise ValueError(f"has {name}{list(array.shape)} of {array.dtype}, which do not fit the rest")

    def __len__(self) -> int:
        """N."""
        return len(self.positions)

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of all that the map holds."""
        return _digest(self._arrays())

    def write(self, path: str | Path) -> None:
        """Writes the map atomically.

        Raises:
            UserError: the file cannot be written.
        """
        arrays = {MARK: np.array([VERSION]), **self._arrays()}  # the mark first, see is_image_map
        arrays["digest"] = np.frombuffer(bytes.fromhex(self.digest), np.uint8)
        with atomic_write(path) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: str | Path) -> ImageMap:
        """Reads a map that `write` wrote.

        Raises:
            UserError: there is no such file, it is no map, of a later version, or damaged.
        """
        arrays = _read_arrays(path)
        version = arrays.pop(MARK, None)
        if version is None:
            raise UserError(f"{printable(path)} is no map of images: siamtransfer map writes one")
        if version.tolist() != [VERSION]:
            raise UserError(
                f"{printable(path)} is a map of version {version.tolist()}, and this version of siamtransfer "
                f"reads {VERSION}: make it anew"
            )
        digest = arrays.pop("digest", np.zeros(0, np.uint8))
        if digest.tobytes().hex() != _digest(arrays):
            raise UserError(
                f"{printable(path)} is damaged: its content does not match its digest; make it anew"
            )
        try:
            return cls._from_arrays(arrays)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{printable(path)} {error}: make it anew") from error

    @classmethod
    def _from_arrays(cls, arrays: dict[str, np.ndarray]) -> ImageMap:
        text = json.loads(arrays["text"].tobytes().decode())
        count = sum(name.startswith(_SHEET) for name in arrays)
        sheets = tuple(arrays[f"{_SHEET}{number}"].tobytes() for number in range(count))
        content: dict[str, Any] = {key: arrays[key] for key in _SHAPES}
        content |= {key: tuple(text[key]) for key in ("class_names", "names")}
        thumbnails = Thumbnails(sheets, **text["thumbnails"])
        return cls(**content, thumbnails=thumbnails, facts=text["facts"])

    def _arrays(self) -> dict[str, np.ndarray]:
        thumbnails = {
            item.name: getattr(self.thumbnails, item.name)
            for item in fields(Thumbnails)
            if item.name != "sheets"
        }
        text = {
            "class_names": self.class_names,
            "names": self.names,
            "thumbnails": thumbnails,
            "facts": self.facts,
        }
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _SHAPES}
        arrays["text"] = np.frombuffer(to_json(text).encode(), np.uint8)
        for number, sheet in enumerate(self.thumbnails.sheets):
            arrays[f"{_SHEET}{number}"] = np.frombuffer(sheet, np.uint8)
        return arrays


def is_image_map(path: str | Path) -> bool:
    """Whether a file is a map, whole or damaged. It looks at the beginning only, where a zip file names its
    first array, for one that was cut off has no list of its arrays."""
    try:
        with Path(path).open("rb") as file:
            return f"{MARK}.npy".encode() in file.read(_HEAD)
    except OSError:
        return False


def _read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise UserError(f"there is no map {printable(path)}; siamtransfer map writes one")
    try:
        survey_arrays(path)
        verify_zip(path)
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{printable(path)} cannot be read as a map: {error}") from error


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
