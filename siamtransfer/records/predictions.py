"""The files of a measurement: its record as OUT.json and, beside it, the predictions as OUT.npz.

The record names the digest of the predictions, so that predictions of another measurement are noticed, and
its own, so that a record that was changed is.
comparison.py compares two such pairs.

Legend: Q scored samples, C classes.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from siamtransfer.records.image_areas import ImageAreas, is_of_areas
from siamtransfer.records.sample_values import SampleValues, is_of_values
from siamtransfer.utils.array_files import survey_arrays
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import FileGroup, atomic_write, beside_path, digest_of_file
from siamtransfer.utils.json_file import read_json
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json
from siamtransfer.utils.text import printable
from siamtransfer.utils.zip_files import verify_zip

DIGEST = "record_digest"
"""In the provenance: the SHA-256 of the record without this entry, as JSON in one line."""
_DIGEST_MARK = "sha256 of this record: "  # before the digest: where the entry's name is damaged, this is not
END = "/predictions"
"""Every array of predictions is named `SETTING/predictions`."""
CONFIDENCES = "/confidences"
"""And every array of confidences `SETTING/confidences`."""
_SHOWN = 40  # characters of a wrong value
_ROUNDING = 1e-6
"""How far rounding may take a probability out of its range."""


@dataclass(eq=False)
class Predictions:
    """The labels of all scored samples, and the predictions of every setting.

    Attributes:
        labels: int64[Q]; or for several labels a sample int64[Q, C] of 0 and 1.
        settings: by name (`k=20/T=0.07`) the predicted labels int64[Q], or the scores float64[Q, C].
        confidences: float32[Q] in [0, 1], the probability that the classifier gives its own prediction (a
            softmax's, or a share of votes); of those settings for which it is kept, none with scores.

    Raises:
        ValueError: shapes or types do not fit; the message is the rest of a sentence that begins with the
            file's name.
    """

    labels: np.ndarray
    settings: dict[str, np.ndarray]
    confidences: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape, several = self.labels.shape, self.labels.ndim == 2
        if len(shape) not in (1, 2) or not self.labels.size:
            raise ValueError(f"holds labels{list(shape)}; [Q] or [Q,C] are needed")
        if self.labels.dtype.kind not in "iub":
            raise ValueError(f"holds labels of type {self.labels.dtype}; integers are needed")
        if several and not np.isin(self.labels, (0, 1)).all():
            raise ValueError("holds labels[Q,C] other than 0 and 1")
        if not self.settings:
            raise ValueError(f"holds no predictions, which are called NAME{END}")
        for name, predicted in self.settings.items():
            what = f"holds {name}{END}{list(predicted.shape)} of type {predicted.dtype}"
            if predicted.shape != shape or predicted.dtype.kind not in ("f" if several else "iu"):
                kind = "floating-point scores" if several else "integers"
                raise ValueError(f"{what}; {kind} {list(shape)} are needed, as there are labels")
            if several and not np.isfinite(predicted).all():
                raise ValueError(f"{what} that are not all finite")
        self.labels = self.labels.astype(np.int64)
        wide = np.float64 if several else np.int64
        self.settings = {name: predicted.astype(wide) for name, predicted in self.settings.items()}
        self.confidences = {name: self._confidence(name, given) for name, given in self.confidences.items()}

    def _confidence(self, name: str, given: np.ndarray) -> np.ndarray:
        """A setting's confidences float32[Q]; raises ValueError where they are something else."""
        what = f"holds {name}{CONFIDENCES}{list(given.shape)} of type {given.dtype}"
        if self.labels.ndim == 2:
            raise ValueError(f"{what}, which go with one label a sample, and there are several")
        if name not in self.settings:
            raise ValueError(f"{what} without {name}{END}")
        if given.shape != self.labels.shape or given.dtype.kind != "f":
            raise ValueError(f"{what}; floating-point numbers {list(self.labels.shape)} are needed")
        if not ((given >= -_ROUNDING) & (given <= 1 + _ROUNDING)).all():
            raise ValueError(f"{what} that are not all between 0 and 1")
        kept: np.ndarray = given.astype(np.float32).clip(0, 1)
        return kept

    def write(self, path: str | Path) -> None:
        """Writes an .npz atomically; equal predictions make equal bytes.

        Its arrays are `labels` and, for every setting, `NAME/predictions`; for one label a sample also
        `NAME/classes` and `NAME/confusion`[true, predicted], and `NAME/confidences` where they are kept.
        """
        with atomic_write(path) as file:
            self.save(file)

    def save(self, file: IO[bytes]) -> None:
        """Writes the same arrays into an open file."""
        arrays = {"labels": self.labels}
        for name, predicted in self.settings.items():
            arrays[name + END] = predicted
            if self.labels.ndim == 1:
                classes, confusion = confusion_matrix(self.labels, predicted)
                arrays |= {f"{name}/classes": classes, f"{name}/confusion": confusion}
            if name in self.confidences:
                arrays[name + CONFIDENCES] = self.confidences[name]
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: str | Path) -> Predictions:
        """Reads a file that `write` wrote.

        Raises:
            UserError: there is no such file, it is damaged, or it holds something else.
        """
        return cls._from_arrays(path, _read_arrays(path))

    @classmethod
    def _from_arrays(cls, path: str | Path, arrays: dict[str, np.ndarray]) -> Predictions:
        if "labels" not in arrays:
            raise UserError(f"{path} has no array called labels: it is no file of predictions")
        settings, confidences = (
            {name.removesuffix(end): array for name, array in arrays.items() if name.endswith(end)}
            for end in (END, CONFIDENCES)
        )
        try:
            return cls(arrays["labels"], settings, confidences)
        except ValueError as error:
            raise UserError(f"{path} {error}") from error

    def __len__(self) -> int:
        """Q."""
        return len(self.labels)


Kept = Predictions | ImageAreas | SampleValues
"""What lies beside a record: predictions of samples, the areas of segmented images, or a value a sample."""


def read_kept(path: str | Path) -> Kept:
    """Reads a file that one of the kinds of `Kept` wrote.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    arrays = _read_arrays(path)
    if not (is_of_areas(arrays) or is_of_values(arrays)):
        return Predictions._from_arrays(path, arrays)
    try:
        return (ImageAreas if is_of_areas(arrays) else SampleValues).from_arrays(arrays)
    except (ValueError, UserError) as error:
        raise UserError(f"{path} {error}") from error


def _read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    try:
        survey_arrays(path)
        if zipfile.is_zipfile(path):
            verify_zip(path)
        content = np.load(path, allow_pickle=False)
        return {"": content} if isinstance(content, np.ndarray) else dict(content)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(f"{path} cannot be read as predictions: {reason or error}") from error


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts each pair of a true and a predicted class.

    Returns:
        The classes in labels[Q] or predicted[Q], int64[C] in rising order, and the counts int64[C, C] of
        [true, predicted].
    """
    classes = np.union1d(labels, predicted)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (np.searchsorted(classes, labels), np.searchsorted(classes, predicted)), 1)
    return classes, confusion


class SavedRecord(NamedTuple):
    """A record that was read from its file, with its predictions."""

    path: Path
    record: dict[str, Any]
    predictions: Kept


def publish(
    record: dict[str, Any],
    predictions: Kept | None,
    path: str | None,
    beside: Mapping[str, tuple[dict[str, Any], Kept | None]] | None = None,
) -> dict[str, Any]:
    """Returns the record; writes it to `path`, an OUT.json, and the predictions to OUT.npz, unless that is
    None. Further records `beside` it, by name, become OUT.NAME.json and OUT.NAME.npz. All files are written
    or none, and the provenance of a record with predictions then has a `predictions_digest` and a
    `record_digest`.

    Raises:
        UserError: the files cannot be written.
    """
    if path is None:
        return record
    out = Path(path)
    with FileGroup() as files:
        record = _write(record, predictions, out, files)  # the first that is opened appears last
        for name, (further, kept) in (beside or {}).items():
            _write(further, kept, beside_path(out, name), files)
    say(f"wrote {out}" + (f" and the predictions beside it, {out.stem}.npz" if predictions else ""))
    for name in beside or {}:
        say(f"wrote {beside_path(out, name)}")
    return record


def _write(record: dict[str, Any], kept: Kept | None, out: Path, files: FileGroup) -> dict[str, Any]:
    """Writes one record and its predictions, which appear when `files` closes; returns the record."""
    text = files.open(out)
    if kept is not None:
        arrays = files.open(out.with_suffix(".npz"))
        kept.save(arrays)
        arrays.flush()
        digest = digest_of_file(arrays.name)
        record = {**record, "provenance": {**record["provenance"], "predictions_digest": digest}}
        record = {**record, "provenance": {**record["provenance"], DIGEST: _digest_of_record(record)}}
    text.write(f"{to_json(record)}\n".encode())
    return record


def read_document(path: str | Path) -> dict[str, Any]:
    """Reads a record without looking for its predictions, which it need not have.

    Raises:
        UserError: the file is absent, damaged or no record.
    """
    path = Path(path)
    if path.suffix == ".npz":
        raise UserError(
            f"{printable(path)} is not a record, which is one JSON document: name the .json beside it"
        )
    record = read_json(path)
    entries = {"task": str, "metrics": dict, "protocol": dict, "provenance": dict}
    for entry, kind in entries.items():
        if not isinstance(record, dict) or not isinstance(record.get(entry), kind):
            raise UserError(f"{printable(path)} is not a record: it has no {entry}")
    _refuse_other_metrics(record["metrics"], path)
    values = [value for value in record["provenance"].values() if isinstance(value, str)]
    marked = DIGEST in record["provenance"] or any(value.startswith(_DIGEST_MARK) for value in values)
    if marked and record["provenance"].get(DIGEST) != _digest_of_record(record):  # else of an older version
        raise UserError(
            f"{printable(path)} is not as it was written: its content does not match its {DIGEST}"
        )
    return dict(record)


def _refuse_other_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Raises UserError for a metric that is no number; null stands for one that is not finite."""
    for name, value in metrics.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(
                f"{printable(path)} is not a record: its metric {printable(name)} is no number but "
                f"{str(value)[:_SHOWN]!r}"
            )


def read_record(path: str | Path) -> SavedRecord:
    """Reads a record that `publish` wrote, and its predictions.

    Raises:
        UserError: a file is absent, damaged or something else, or the predictions are of another record.
    """
    path = Path(path)
    record = read_document(path)
    return SavedRecord(path, record, read_predictions_of(path, record))


def read_predictions_of(path: str | Path, record: dict[str, Any]) -> Kept:
    """The predictions beside a `record` that was read from `path`.

    Raises:
        UserError: it names none, or they are absent, damaged or of another record.
    """
    path = Path(path)
    digest, beside = record["provenance"].get("predictions_digest"), path.with_suffix(".npz")
    if digest is None:
        raise UserError(f"{path} names no predictions: measure again with --record, which keeps them")
    if not beside.is_file():
        raise UserError(f"{path} has lost its predictions: there is no file {beside}")
    if digest_of_file(beside) != digest:
        raise UserError(f"{beside} is not the file of predictions that {path} names: its digest is another")
    return read_kept(beside)


def _digest_of_record(record: dict[str, Any]) -> str:
    provenance = {key: value for key, value in record["provenance"].items() if key != DIGEST}
    text = to_json({**record, "provenance": provenance})
    return _DIGEST_MARK + hashlib.sha256(text.encode()).hexdigest()
