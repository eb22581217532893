"""Weights & Biases: a run with its configuration, numbers, and a record as an artefact."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from siamtransfer.trackers.document import Document
from siamtransfer.trackers.kept_ids import read_kept_id
from siamtransfer.trackers.names import mapped_names, to_wandb
from siamtransfer.utils.files import write_checked_text

TAG_LENGTH = 64  # that W&B takes


class WandbRun:
    """An open run of W&B.

    Args:
        config: shown as the run's configuration.
        folder: of a pretraining run: where W&B's files lie, and the id with which a resumed run goes on.
        labels: tags of the run.
    """

    def __init__(
        self,
        project: str,
        name: str,
        config: Mapping[str, Any],
        *,
        folder: Path | None = None,
        labels: Sequence[str] = (),
    ):
        import wandb

        self._wandb = wandb
        going_on: dict[str, Any] = (
            {} if folder is None else {"id": kept_id(folder), "resume": "allow", "dir": folder}
        )
        more: dict[str, Any] = {"tags": [label[:TAG_LENGTH] for label in labels]} if labels else {}
        self._run = wandb.init(project=project, name=name, config=dict(config), **going_on, **more)

    def write(self, step: int, numbers: Mapping[str, Any]) -> None:
        """A row of numbers at `step`."""
        names = mapped_names(numbers, to_wandb)
        self._run.log({names[name]: value for name, value in numbers.items()}, step=step)

    def log(self, document: Document) -> None:
        """The numbers of a record; the record and the files beside it as an artefact of the type `record`."""
        self.write(0, document.numbers)
        artifact = self._wandb.Artifact(f"record-{self._run.id}", type="record")
        with artifact.new_file("record.json", encoding="utf-8") as file:
            file.write(document.text)
        for path in document.beside:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


def kept_id(folder: Path) -> str:
    """The W&B id of the run in `folder`, kept in wandb_id.txt.

    It is random at the first start, so that two folders of one name are two runs; a resumed run reads it. In
    the place of a damaged one comes a new one, with a remark.
    """
    path = folder / "wandb_id.txt"
    known = read_kept_id(path, "W&B")
    if known:
        return known
    fresh = uuid.uuid4().hex
    write_checked_text(path, fresh + "\n")
    return fresh
