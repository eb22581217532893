"""Sends records to TensorBoard, Weights & Biases or MLflow, after they were measured.

    siamtransfer track a.json b.json --to tensorboard:boards
    siamtransfer track runs/suites/quick --to mlflow:http://127.0.0.1:5000 --to wandb:backbones

Evaluators do the same at their end by --track. Each record becomes a run there: its numbers with their cost,
its protocol as parameters, and the record itself with its predictions. A record that is sent twice is there
twice. docs/TRACKING.md says how names are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from siamtransfer.cli import Command, run
from siamtransfer.trackers.targets import parse_targets
from siamtransfer.utils.errors import UserError


@dataclass
class TrackOptions:
    """Which records go where."""

    positional: ClassVar[tuple[str, ...]] = ("records",)
    common: ClassVar[tuple[str, ...]] = ("records", "to")

    records: list[str] = field(default_factory=list)
    """Records, and folders that are searched for them with all below."""
    to: list[str] = field(default_factory=list, metadata={"append": True})
    """A tracker: tensorboard:FOLDER, wandb[:PROJECT] or mlflow[:URI]; may be repeated."""

    def check(self) -> None:
        """Raises UserError where records or trackers are not named."""
        if not self.records:
            raise UserError("name the records to send, or folders of them")
        if not self.to:
            raise UserError("name a tracker by --to: tensorboard:FOLDER, wandb[:PROJECT] or mlflow[:URI]")
        parse_targets(self.to, "--to")


def send_records(options: TrackOptions) -> dict[str, Any]:
    """Reads all records, then sends them; returns the record of that."""
    options.check()
    from siamtransfer.records.record import record
    from siamtransfer.trackers.document import Document, predictions_beside
    from siamtransfer.trackers.track import look_at_trackers, send

    documents = [Document(found, predictions_beside(path)) for path, found in _read(options.records).items()]
    if not documents:
        raise UserError(f"there is no record in {' '.join(options.records)}")
    look_at_trackers(options.to, "--to")
    failed = send(documents, options.to, "--to")
    if failed:
        raise UserError(f"{'; '.join(failed)}: the files are as they were, so send them again")
    metrics = {"track/records": float(len(documents))}
    return record("track", metrics, {"to": options.to}, records=options.records)


def _read(paths: list[str]) -> dict[Path, dict[str, Any]]:
    """The records by their files, each once."""
    from siamtransfer.leaderboard.collection import json_files_below, read_if_record
    from siamtransfer.records.predictions import read_document

    found: dict[Path, dict[str, Any]] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = read_document(path)
            continue
        for file in json_files_below(path):
            document = read_if_record(file)
            if document is not None:
                found[file] = document
    return found


main = Command("track", TrackOptions, send_records, __doc__)

if __name__ == "__main__":
    run(main)
