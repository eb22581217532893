"""Features of any framework, from an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from siamtransfer.features.extract import Features
from siamtransfer.utils.array_files import survey_arrays
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.zip_files import open_zip, verify_zip

ROWS = 8192  # that are checked at once


def read_feature_file(path: str | Path, *, mapped: bool = False, labels_needed: bool = True) -> Features:
    """Features of any framework: an .npz with `features`[N, D] and `labels`[N] or, for several labels an
    image, `labels`[N, C] of 0 and 1.

    With `mapped` the features of an uncompressed file (as numpy.savez writes it) stay on disk in their own
    type. Where labels are not needed, a file may lack them.

    Raises:
        UserError: the file or one of its arrays is missing, or their shapes do not match.
    """
    try:
        survey_arrays(path, mapped=("features.npy",) if mapped else ())
        if zipfile.is_zipfile(path):
            verify_zip(path)  # numpy compares no checksum where a damaged header names fewer numbers
        elif not _begins_as_array(path):
            raise ValueError("its content is not that of a zip archive, which an .npz file is")
        features: np.ndarray | None = _map_member(Path(path), "features.npy") if mapped else None
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise ValueError("it holds a single array without a name")
        with content as arrays:
            features = arrays["features"] if features is None else features
            labels = arrays["labels"] if labels_needed or "labels" in arrays else None
    except KeyError as error:
        raise UserError(
            f"{path} has no array {error.args[0].split()[0]}: it must hold features[N,D] and labels[N]"
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read as an .npz file: {reason}") from error
    if features.ndim != 2 or not features.size:
        said = "" if labels is None else f" and labels{list(labels.shape)}"
        raise UserError(
            f"{path} holds features{list(features.shape)}{said}; [N,D] and [N] (or [N,C]) are needed"
        )
    y = None if labels is None else _checked_labels(labels, features, path)
    if not np.issubdtype(features.dtype, np.floating):
        raise UserError(f"{path} holds features of type {features.dtype}, not finite floating-point numbers")
    if isinstance(features, np.memmap):
        return Features(features, y)
    return Features(torch.from_numpy(_narrow(features, path)), y)


def _begins_as_array(path: str | Path) -> bool:
    with Path(path).open("rb") as file:
        return file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX


def _checked_labels(labels: np.ndarray, features: np.ndarray, path: str | Path) -> torch.Tensor:
    """int64[N] or [N, C] of features[N, D]; raises UserError where they are none."""
    if labels.ndim not in (1, 2) or len(labels) != len(features):
        raise UserError(
            f"{path} holds features{list(features.shape)} and labels{list(labels.shape)}; "
            "[N,D] and [N] (or [N,C]) are needed"
        )
    if not np.issubdtype(labels.dtype, np.integer) and labels.dtype != bool:
        raise UserError(f"{path} holds labels of type {labels.dtype}; integers are needed")
    if labels.ndim == 2 and not np.isin(labels, (0, 1)).all():
        raise UserError(f"{path} holds labels[N,C] other than 0 and 1")
    if labels.dtype.kind == "u" and labels.max() > np.iinfo(np.int64).max:
        raise UserError(f"{path} holds the label {labels.max()}, which is beyond the integers of 64 bits")
    return torch.from_numpy(labels.astype(np.int64))


def _narrow(features: np.ndarray, path: str | Path) -> np.ndarray:
    """features[N, D] in float32, checked in chunks; no copy of them where they are float32 already.

    Raises:
        UserError: a value is not finite, or beyond the range of float32.
    """
    narrow = features if features.dtype == np.float32 else np.empty(features.shape, np.float32)
    for begin in range(0, len(features), ROWS):
        rows, kept = features[begin : begin + ROWS], narrow[begin : begin + ROWS]
        if not np.isfinite(rows).all():
            raise UserError(f"{path} holds features that are not all finite floating-point numbers")
        if narrow is features:
            continue
        with np.errstate(over="ignore", under="ignore"):
            kept[:] = rows
        # below its smallest normal number float32 has fewer digits, and at last none
        lost = (rows != 0).any(axis=1) & (np.abs(kept).max(axis=1) < np.finfo(np.float32).tiny)
        if not np.isfinite(kept).all() or lost.any():
            raise UserError(f"{path} holds features beyond the range of float32: multiply them by a constant")
    return narrow


def _map_member(path: Path, name: str) -> np.memmap | None:
    """An array of an .npz file, mapped from it; None when it is not there or compressed."""
    with open_zip(path) as archive:
        member = next((info for info in archive.infolist() if info.filename == name), None)
        if member is None or member.compress_type != zipfile.ZIP_STORED:
            return None
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # the lengths of the name and of the extra field, then both
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(member.header_offset + 30 + int(lengths.sum()))
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            return None
        shape, fortran, dtype = header[version](file)
        if fortran or dtype.hasobject or len(shape) != 2:
            return None
        # torch takes no other order of bytes, and no long double
        if not dtype.isnative or dtype.itemsize > 8:
            return None
        return np.memmap(path, dtype, "r", file.tell(), shape)
