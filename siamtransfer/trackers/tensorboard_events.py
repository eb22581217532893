"""TensorBoard's view of rows and records."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from pathlib import Path

from siamtransfer.trackers.document import Document
from siamtransfer.trackers.event_file import EventFile


class TensorBoardRun:
    """The events of one run in `folder`. From step `start` on, those of a killed run are dropped.

    Raises:
        OSError: (from any method) the file of events cannot be written.
    """

    def __init__(self, folder: Path, start: int = 0):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._file = EventFile(folder)
        if start:
            begin = SessionLog(status=SessionLog.START)
            self._file.append([Event(step=start + 1, session_log=begin)])

    def write(self, step: int, numbers: Mapping[str, object]) -> None:
        """The numbers, under their names, at `step`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard.summary import scalar

        parts = [scalar(name, value) for name, value in numbers.items() if isinstance(value, int | float)]
        if parts:
            summary = Summary(value=[value for part in parts for value in part.value])
            self._file.append([Event(step=step, summary=summary)])

    def log(self, document: Document) -> None:
        """The numbers of a record at step 0; its parameters as a table, and itself as text."""
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import text

        self.write(0, document.numbers)
        rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in document.parameters.items()]
        table = "\n".join(["| parameter | value |", "|---|---|", *rows])
        pretty = json.dumps(json.loads(document.text), indent=2, ensure_ascii=False)
        indented = "\n".join(f"    {line}" for line in pretty.splitlines())  # Markdown's way to quote code
        self._file.append([Event(summary=text("protocol", table)), Event(summary=text("record", indented))])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


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
