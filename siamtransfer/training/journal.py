"""What a training writes down: metrics.jsonl (one row a measurement), and the viewers that are chosen.

Viewers see every number under its name and, where that differs, under its plain alias too (see
records/metric_names.py); metrics.jsonl holds the names alone.

metrics.jsonl.crc32 beside it has a line for every row: its step, and the CRC-32 of all rows up to it. So a
row that was changed, lost or moved is noticed when a run goes on, and when the rows are drawn.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

from siamtransfer.trackers.mirrors import Mirrors, open_mirrors
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.strict_json import to_json


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
        mlflow: bool | str = False,
        config: dict[str, Any] | None = None,
    ):
        self._file: _CheckedRows | None = None
        self._mirrors = Mirrors({})
        self.rows: list[dict[str, Any]] = []
        if run is None:
            return
        path = run / "metrics.jsonl"
        self.rows = read_rows(path, up_to=start) if start else []
        self._file = _CheckedRows(path, self.rows)
        self._mirrors = open_mirrors(
            run, config or {}, start=start, tensorboard=tensorboard, wandb=wandb, mlflow=mlflow
        )

    def write(self, step: int, numbers: dict[str, Any]) -> None:
        """Adds one row; it is in the file when this returns."""
        row = {"step": step, **numbers}
        self.rows.append(row)
        if self._file:
            self._file.append(row)
        self._mirrors.write(step, numbers)

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
        self._mirrors.close()


class _Checksum(NamedTuple):
    """The step of a row, and the CRC-32 of all rows up to it."""

    step: int
    crc: int


class _CheckedRows:
    """The open file metrics.jsonl, new with `rows`, and its checksums."""

    def __init__(self, path: Path, rows: list[dict[str, Any]]):
        beside = _checksum_path(path)
        beside.unlink(missing_ok=True)  # first: a process killed here leaves rows without checksums
        lines, checksums, crc = [to_json(row).encode() for row in rows], [], 0
        for row, line in zip(rows, lines, strict=True):
            crc = zlib.crc32(line, crc)
            checksums.append(_Checksum(row["step"], crc))
        for name, content in ((path, lines), (beside, map(_checksum_line, checksums))):
            with atomic_write(name) as file:
                file.writelines(line + b"\n" for line in content)
        self._crc = crc
        self._files: list[IO[bytes]] = [path.open("ab"), beside.open("ab")]

    def append(self, row: dict[str, Any]) -> None:
        """Writes a row, then its checksum."""
        line = to_json(row).encode()
        self._crc = zlib.crc32(line, self._crc)
        checksum = _checksum_line(_Checksum(row["step"], self._crc))
        for file, text in zip(self._files, (line, checksum), strict=True):
            file.write(text + b"\n")
            file.flush()

    def close(self) -> None:
        for file in self._files:
            file.close()


def read_rows(path: Path, *, up_to: int | None = None) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, those after step `up_to` left out; a missing file has none.

    A half-written last line is left out too, and so is a last row that has no checksum yet. Rows of an older
    version have no checksums.

    Raises:
        UserError: a row, up to that step, is damaged or lost.
    """
    checksums = _read_checksums(_checksum_path(path))  # first: a running program writes them last
    if not path.exists():
        return []
    *lines, rest = path.read_bytes().split(b"\n")
    if rest:
        lines.append(rest)
    rows = _plain_rows(path, lines) if checksums is None else _checked_rows(path, lines, checksums, up_to)
    return [row for row in rows if up_to is None or row["step"] <= up_to]


def _plain_rows(path: Path, lines: list[bytes]) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise UserError(f"{path} line {number} is damaged: mend or remove the file before resuming")
    return rows


def _checked_rows(
    path: Path, lines: list[bytes], checksums: list[_Checksum], up_to: int | None
) -> list[dict[str, Any]]:
    """The rows of `lines` as far as they match their checksums.

    Behind them there may be rows after step `up_to`, and one without checksum that a program is writing.
    """
    parsed = [_row(line) for line in lines]
    rows: list[dict[str, Any]] = []
    crc = 0
    for line, row, checksum in zip(lines, parsed, checksums, strict=False):
        crc = zlib.crc32(line, crc)
        if row is None or (row["step"], crc) != checksum:
            break
        rows.append(row)
    good = len(rows)
    behind = [row["step"] for row in parsed[good:] if row] + [checksum.step for checksum in checksums[good:]]
    if up_to is not None and min(behind, default=up_to + 1) <= up_to:
        raise _damaged(path, good + 1)
    if up_to is None and (good < len(checksums) or len(lines) > good + 1):
        raise _damaged(path, good + 1)
    return rows


def _damaged(path: Path, number: int) -> UserError:
    return UserError(
        f"{path} line {number} is damaged: it does not match its checksum in {_checksum_path(path).name}; "
        "restore the file or remove it before resuming"
    )


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return row if isinstance(step, int) and not isinstance(step, bool) else None


def _checksum_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.crc32")


def _checksum_line(checksum: _Checksum) -> bytes:
    return f"{checksum.step} {checksum.crc:08x}".encode()


def _read_checksums(path: Path) -> list[_Checksum] | None:
    """The checksums in a file; None where there is no file. A half-written last line is left out; from a
    damaged line on there are none, so that its row is noticed."""
    if not path.exists():
        return None
    checksums = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        step, _, crc = line.partition(b" ")
        try:
            checksums.append(_Checksum(int(step), int(crc, 16)))
        except ValueError:
            break
    return checksums
