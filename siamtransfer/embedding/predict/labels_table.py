"""The table of `predict`: a CSV with a line an image, and the record beside it as OUT.json.

Columns: path; of several splits split; label; given (yes where the label was given, otherwise no);
probability of the label; runner_up, its probability; unknown (yes or no); distance to the nearest labelled
image; then a probability for each class, as p:CLASS. Of a given label that could not be held out the
probabilities are empty.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from siamtransfer.embedding.tables.csv_table import CsvRows, write_record_beside
from siamtransfer.embedding.tables.table import Missing, Row
from siamtransfer.utils.files import atomic_write


@dataclass(frozen=True)
class LabelRow:
    """What is said of an image.

    Attributes:
        label: the class, an index.
        given: whether the label was given.
        probabilities: float64[K]; None where there are none.
        unknown: whether the image is farther from the labelled ones than they are from one another.
        distance: to the nearest (other) labelled image, from 0 to 2.
    """

    label: int
    given: bool
    probabilities: np.ndarray | None
    unknown: bool
    distance: float


@contextlib.contextmanager
def labels_table(out: Path, classes: tuple[str, ...], *, several_splits: bool) -> Iterator[LabelsTable]:
    """A CSV that appears under `out` at the end, and the record beside it."""
    with atomic_write(out) as file:
        yield LabelsTable(file, out.with_suffix(".json"), classes, several_splits)


class LabelsTable:
    """A table that is being written; see the module."""

    def __init__(self, file: IO[bytes], beside: Path, classes: tuple[str, ...], several_splits: bool):
        self._rows, self._file, self._beside = CsvRows(file), file, beside
        self._classes, self._several_splits = classes, several_splits
        self._rows.write(
            [
                *("path", *(["split"] if several_splits else []), "label", "given", "probability"),
                *("runner_up", "runner_up_probability", "unknown", "distance"),
                *(f"p:{name}" for name in classes),
            ]
        )

    def add(self, row: Row, said: LabelRow) -> None:
        """Writes a line."""
        p = said.probabilities
        if p is None:
            numbers, second = ["", "", ""], [""] * len(self._classes)
        else:
            other = int(np.argmax(np.where(np.arange(len(p)) == said.label, -1.0, p)))
            numbers = [f"{p[said.label]:.6f}", self._classes[other], f"{p[other]:.6f}"]
            second = [f"{value:.6f}" for value in p]
        self._rows.write(
            [
                *(row.path, *([row.split] if self._several_splits else [])),
                *(self._classes[said.label], _word(said.given), *numbers),
                *(_word(said.unknown), f"{said.distance:.6f}", *second),
            ]
        )

    def finish(self, record: dict[str, Any], missing: list[Missing]) -> None:
        """Writes the record, with the images that have no line, into the file beside the table."""
        write_record_beside(self._file, self._beside, record, missing)


def _word(value: bool) -> str:
    return "yes" if value else "no"
