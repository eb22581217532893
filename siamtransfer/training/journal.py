"""What a training writes down: metrics.jsonl (one row a measurement), TensorBoard, and W&B where chosen.

Viewers see every number under its name and, where that differs, under its plain alias too (see
records/metric_names.py); metrics.jsonl holds the names alone.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import IO, Any, Protocol

from siamtransfer.records.metric_names import with_aliases
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, write_text
from siamtransfer.utils.strict_json import to_json


class _Viewer(Protocol):
    """A program that shows the numbers."""

    def write(self, step: int, numbers: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class Journal:
    """Rows of numbers keyed by step, appended to `metrics.jsonl` and mirrored to the viewers.

    Opened at step `start`, it drops the rows that a killed run wrote after its last checkpoint (and a last
    half-written line), so that a resumed run's journal has every row once. Without a `run` folder (ranks
    other than 0) rows are kept in memory only.
    """

    def __init__(
        self,
        run: Path | None,
        *,
        start: int = 0,
        tensorboard: bool = True,
        wandb: bool = False,
        config: dict[str, Any] | None = None,
    ):
        self._file: IO[str] | None = None
        self._viewers: list[_Viewer] = []
        self.rows: list[dict[str, Any]] = []
        if run is None:
            return
        path = run / "metrics.jsonl"
        self.rows = [row for row in read_rows(path) if row["step"] <= start] if start else []
        with atomic_write(path) as file:
            file.writelines(f"{to_json(row)}\n".encode() for row in self.rows)
        self._file = path.open("a")
        if tensorboard:
            self._viewers.append(_TensorBoard(run / "tensorboard", start))
        if wandb:
            self._viewers.append(_Wandb(run, config or {}))

    def write(self, step: int, numbers: dict[str, Any]) -> None:
        """Adds one row; it is in the file when this returns."""
        row = {"step": step, **numbers}
        self.rows.append(row)
        if self._file:
            self._file.write(to_json(row) + "\n")
            self._file.flush()
        for viewer in self._viewers:
            viewer.write(step, with_aliases(numbers))

    def has(self, step: int, name: str) -> bool:
        """Whether a row of `step` holds the number `name`."""
        return any(row["step"] == step and name in row for row in self.rows)

    def series(self, name: str) -> list[tuple[int, float]]:
        """All (step, value) of one number, in order."""
        return [(row["step"], row[name]) for row in self.rows if row.get(name) is not None]

    def close(self) -> None:
        """Flushes and closes the file and the viewers; a second call changes nothing."""
        if self._file:
            self._file.close()
        while self._viewers:
            self._viewers.pop().close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a half-written last line is left out, a missing file has no rows.

    Raises:
        UserError: a line before the last is not a row.
    """
    if not path.exists():
        return []
    rows, lines = [], path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise UserError(f"{path} line {number} is damaged: mend or remove the file before resuming")
    return rows


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class _TensorBoard:
    def __init__(self, folder: Path, start: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def write(self, step: int, numbers: dict[str, Any]) -> None:
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, run: Path, config: dict[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "log.wandb needs the package wandb: pip install 'siamtransfer[wandb]', or --log.wandb false"
            ) from error
        self._run = wandb.init(
            project="siamtransfer",
            id=_wandb_id(run),
            name=run.resolve().name,
            resume="allow",
            dir=run,
            config=config,
        )

    def write(self, step: int, numbers: dict[str, Any]) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


def _wandb_id(run: Path) -> str:
    """The W&B id of the run in the folder `run`, kept in wandb_id.txt.

    It is random at the first start, so that two folders of one name are two runs; a resumed run reads it.
    """
    path = run / "wandb_id.txt"
    if path.exists() and (known := path.read_text(encoding="utf-8").strip()):
        return known
    fresh = uuid.uuid4().hex
    write_text(path, fresh + "\n")
    return fresh
