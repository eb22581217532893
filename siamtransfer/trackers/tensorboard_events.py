"""TensorBoard's event files, by torch's writer."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from pathlib import Path

from siamtransfer.trackers.document import Document


class TensorBoardRun:
    """The events of one run in `folder`. From step `start` on, those of a killed run are dropped."""

    def __init__(self, folder: Path, start: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def write(self, step: int, numbers: Mapping[str, object]) -> None:
        """The numbers, under their names, at `step`."""
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)

    def log(self, document: Document) -> None:
        """The numbers of a record at step 0; its parameters as a table, and itself as text."""
        self.write(0, document.numbers)
        rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in document.parameters.items()]
        self._writer.add_text("protocol", "\n".join(["| parameter | value |", "|---|---|", *rows]), 0)
        pretty = json.dumps(json.loads(document.text), indent=2, ensure_ascii=False)
        indented = "\n".join(f"    {line}" for line in pretty.splitlines())  # Markdown's way to quote code
        self._writer.add_text("record", indented, 0)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def folder_for(document: Document, parent: Path) -> Path:
    """A new folder below `parent`, named after the record; TensorBoard shows folders as runs."""
    time = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', document.title)}-{time}"
    for number in range(1, 10**6):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir() or not parent.is_dir():
                raise
            continue
        return folder
    raise FileExistsError(f"{parent} holds a million runs of {name}")


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
