"""What a training writes down: metrics.jsonl (one row a measurement), and the viewers that are chosen.

Viewers see every number under its name and, where that differs, under its plain alias too (see
records/metric_names.py); metrics.jsonl holds the names alone. journal_rows.py reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from siamtransfer.trackers.mirrors import Mirrors, open_mirrors
from siamtransfer.training.journal_file import JournalFile, Row
from siamtransfer.utils.disk_errors import cannot_write
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import to_json

WRITE_FAILED = 2
"""In the place of the exit status of a signal, which is above 128: rank 0 cannot write the rows of the run.
All ranks save after this step and stop."""
UNWRITTEN = "unwritten_rows"
"""The entry of a checkpoint for the rows that found no room."""


class Journal:
    """Rows of numbers keyed by step, appended to `metrics.jsonl` and mirrored to the viewers.

    Opened at step `start`, it drops the rows that a killed run wrote after its last checkpoint (and a last
    half-written line), so that a resumed run's journal has every row once. In memory there are the rows of
    the last step, and the last value of each number that was written; without a `run` folder (ranks other
    than 0) there is nothing else.

    A `patient` journal whose disk is full keeps the rows that it could not write, and says so by `failure`;
    any other one raises.

    Attributes:
        failure: the sentence about a disk that is full or has failed; None where it has not.

    Raises:
        UserError: rows are damaged, the files cannot be written, or a viewer cannot be opened.
    """

    def __init__(
        self,
        run: Path | None,
        *,
        start: int = 0,
        tensorboard: bool = True,
        wandb: bool = False,
        mlflow: bool | str = False,
        config: dict[str, Any] | None = None,
        patient: bool = False,
        unwritten: dict[str, Any] | None = None,
    ):
        self._file: JournalFile | None = None
        self._mirrors = Mirrors({})
        self._patient = patient
        self._pending: list[Row] = []
        self._recent: list[Row] = []
        self._latest: dict[str, tuple[int, float] | None] = {}
        self._failure: UserError | None = None
        self._closed = False
        if run is None:
            return
        path = run / "metrics.jsonl"
        try:
            self._file = JournalFile(path, start)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._recent = self._file.recent
        self._take_up(unwritten or {"after": 0, "rows": []})
        self._mirrors = open_mirrors(
            run, config or {}, start=start, tensorboard=tensorboard, wandb=wandb, mlflow=mlflow
        )

    @property
    def failure(self) -> UserError | None:
        return self._failure or self._mirrors.disk_failure

    def unwritten(self) -> dict[str, Any]:
        """The rows that found no room, for a checkpoint: `after` so many rows of the file follow `rows`;
        empty where there are none. A journal that is opened with them writes them first."""
        if not self._pending or self._file is None:
            return {}
        return {"after": self._file.count, "rows": json.loads(to_json({"rows": self._pending}))["rows"]}

    def _take_up(self, unwritten: dict[str, Any]) -> None:
        """Writes the rows of a checkpoint that are not in the file, where some of them got there later."""
        assert self._file is not None
        for row in unwritten["rows"][max(0, self._file.count - unwritten["after"]) :]:
            self._remember(row)
            self._pending.append(row)
        self._write_pending()

    def write(self, step: int, numbers: dict[str, Any]) -> None:
        """Adds one row; it is in the file when this returns, or `failure` says why not.

        Raises:
            UserError: the row cannot be written, and the journal is not patient.
        """
        row = {"step": step, **numbers}
        self._remember(row)
        if self._file is not None:
            self._pending.append(row)
            self._write_pending()
        self._mirrors.write(step, numbers)
        if self.failure is not None and not self._patient:
            raise self.failure

    def _remember(self, row: Row) -> None:
        if self._recent and self._recent[-1]["step"] != row["step"]:
            self._recent = []
        self._recent.append(row)
        self._latest |= {name: (row["step"], value) for name, value in row.items() if value is not None}

    def _write_pending(self) -> None:
        assert self._file is not None
        try:
            while self._pending:
                self._file.append(self._pending[0])
                del self._pending[0]
            self._failure = None
        except OSError as error:
            self._failure = cannot_write(self._file.path, error)

    def retry(self) -> None:
        """Tries again to write the rows that found no room."""
        if self._file is not None and self._pending:
            self._write_pending()

    def rows_of(self, step: int) -> list[Row]:
        """The rows of `step`, which is the last that has any."""
        return [row for row in self._recent if row["step"] == step]

    def has(self, step: int, name: str) -> bool:
        """Whether a row of `step`, which is the last that has any, holds the number `name`."""
        return any(name in row for row in self.rows_of(step))

    def latest(self, name: str) -> tuple[int, float] | None:
        """The last (step, value) of one number; None where there is none."""
        if name not in self._latest:
            self._latest[name] = None if self._file is None else self._file.latest(name)
        return self._latest[name]

    def close(self) -> None:
        """Flushes and closes the file and the viewers; a second call changes nothing.

        Raises:
            UserError: rows could not be written, and cannot be now; the first call alone says so.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._file is not None:
                self._write_pending()
                self._file.close()
        except OSError as error:
            self._failure = cannot_write(self._file.path, error)  # type: ignore[union-attr]
        finally:
            self._mirrors.close()
        if self.failure is not None:
            raise self.failure
