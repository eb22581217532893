"""The result of a measurement, as the functions of the public API return it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamtransfer.records.predictions import Kept, publish
from siamtransfer.records.record import record
from siamtransfer.utils.files import refuse_record


@dataclass(frozen=True)
class Picture:
    """A picture of a measurement, which a program draws once the record is there.

    Attributes:
        path: its file.
        shows: what it shows, for a message.
        write: writes the file.
    """

    path: str
    shows: str
    write: Callable[[], object]


@dataclass(frozen=True, eq=False)
class Result:
    """The numbers of a measurement, how they were measured, and of what.

    Attributes:
        task: name of the evaluator, such as `knn`.
        metrics: numbers by name, such as `knn/k=20/T=0.07/top1`; accuracies and average precisions are
            percentages.
        protocol: every choice that moves the numbers.
        provenance: what the numbers were computed from: digests of weights, fingerprints of images.
        predictions: of every scored sample by setting, or the areas of segmented images; None for
            a measurement without predictions.
        beside: further results of the same measurement by name, such as those of other test sets, each with
            predictions of its own; their records lie beside this one as OUT.NAME.json.
        pictures: to be drawn, beside the record.
    """

    task: str
    metrics: dict[str, float]
    protocol: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    predictions: Kept | None = None
    beside: dict[str, Result] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()

    def record(self) -> dict[str, Any]:
        """The JSON document that the program of this task prints, with versions, commit, command and time."""
        return record(self.task, self.metrics, self.protocol, **self.provenance)

    def save(self, path: str | Path) -> None:
        """Writes the record to `path`, which ends in .json, and the predictions beside it as .npz, as the
        option --record of a program does.

        Raises:
            UserError: one of the files exists or cannot be written.
        """
        refuse_record(str(path), self.beside)
        self.publish(str(path))

    def publish(self, path: str | None) -> dict[str, Any]:
        """Returns the record; writes it, its predictions and all that is `beside` it, unless `path` is None.

        Raises:
            UserError: the files cannot be written.
        """
        beside = {name: (result.record(), result.predictions) for name, result in self.beside.items()}
        return publish(self.record(), self.predictions, path, beside)

    def __str__(self) -> str:
        """A table: the task, then one line for each metric."""
        width = max((len(name) for name in self.metrics), default=0)
        return "\n".join(
            [self.task, *(f"  {name:{width}}  {value:8.4g}" for name, value in self.metrics.items())]
        )
