"""The rows of a metrics.jsonl, compared with the checksums beside it.

metrics.jsonl.crc32 has a line for every row: its step, and the CRC-32 of all rows up to it. So a row that was
changed, lost or moved is noticed when a run goes on, and when the rows are drawn.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from siamtransfer.utils.errors import UserError


class _Checksum(NamedTuple):
    """The step of a row, and the CRC-32 of all rows up to it."""

    step: int
    crc: int


def read_rows(path: Path, *, up_to: int | None = None) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, those after step `up_to` left out; a missing file has none.

    A half-written last line is left out too, and so is a last row that has no checksum yet. Rows of an older
    version have no checksums.

    Raises:
        UserError: a row, up to that step, is damaged or lost.
    """
    checksums = _read_checksums(checksum_path(path))  # first: a running program writes them last
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
        f"{path} line {number} is damaged: it does not match its checksum in {checksum_path(path).name}; "
        "restore the file or remove it before resuming"
    )


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return row if isinstance(step, int) and not isinstance(step, bool) else None


def checksum_path(path: Path) -> Path:
    """The file of checksums beside a metrics.jsonl."""
    return path.with_name(f"{path.name}.crc32")


def checksum_line(step: int, crc: int) -> bytes:
    """The line of a row's step and of the CRC-32 of all rows up to it."""
    return b"%d %08x" % (step, crc)


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
