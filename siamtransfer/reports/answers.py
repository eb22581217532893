"""What backbones answered: the predicted classes of all that were measured alike, for the same samples.

Sections on classes, confusions and calibration read these. Legend: Q samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamtransfer.leaderboard import Column, Measurement
from siamtransfer.leaderboard.settings import settings_of
from siamtransfer.records.predictions import Predictions
from siamtransfer.reports.naming import task_names
from siamtransfer.reports.sources import Sources
from siamtransfer.utils.text import printable

OF_OUTSIDE = "outside/linear/top1"


@dataclass(frozen=True, eq=False)
class Answer:
    """The predicted classes of one backbone.

    Attributes:
        name: the backbone's label.
        measurement: the record that they lie beside.
        predicted: int64[Q].
        confidences: float32[Q], the probability of the predicted class; None where it was not kept.
    """

    name: str
    measurement: Measurement
    predicted: np.ndarray
    confidences: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of all backbones of a column, the best first.

    Attributes:
        column: of the board.
        task: its short name.
        labels: int64[Q].
        classes: the names of classes by their number, as far as records hold them.
        given: the answers.
    """

    column: Column
    task: str
    labels: np.ndarray
    classes: Sequence[str]
    given: Sequence[Answer]

    def name_of(self, number: int) -> str:
        """The name of a class, or "class 7" where no record has it."""
        known = 0 <= number < len(self.classes)
        return str(self.classes[number]) if known else f"class {number}"


def collect_answers(sources: Sources, *, of_outside: bool = False) -> list[Answers]:
    """The answers in every column of the board whose records keep one predicted class a sample; `of_outside`
    adds those of the head of `outside`, whose accuracy is no column of the board.

    Means over several draws are left out, for they have several predictions a sample; so are records with
    other labels than the column's best, for their samples are others.
    """
    found = []
    boards = [(sources.board, column) for column in sources.board.columns]
    if of_outside:
        boards += [(sources.every, column) for column in sources.every.columns if column.metric == OF_OUTSIDE]
    names = task_names([column for _, column in boards])
    for board, column in boards:
        cells = list(board.of(column).values())
        cells.sort(key=lambda cell: cell.value, reverse=column.higher_is_better)
        labels: np.ndarray | None = None
        given: list[Answer] = []
        classes: list[str] = []
        for cell in cells:
            kept = cell.measurement.sound()
            if not isinstance(kept, Predictions) or kept.labels.ndim != 1:
                continue
            settings = settings_of(kept, column.task, column.metric) or list(kept.settings)
            if len(settings) != 1 or (labels is not None and not np.array_equal(labels, kept.labels)):
                continue
            labels, setting = kept.labels, settings[0]
            classes = classes or class_names(cell.measurement.record)
            name, confidences = cell.measurement.backbone.label, kept.confidences.get(setting)
            given.append(Answer(name, cell.measurement, kept.settings[setting], confidences))
        if labels is not None:
            found.append(Answers(column, names[column].short, labels, classes, given))
    return found


def class_names(record: dict[str, Any]) -> list[str]:
    """The names of classes by number that a record holds; none where it has them not."""
    names = record["provenance"].get("classes")
    return [printable(str(name)) for name in names] if isinstance(names, list) else []
