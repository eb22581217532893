"""The open file metrics.jsonl of a training that runs, and its checksums (see journal_rows.py)."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from siamtransfer.training.journal_rows import checksum_line, checksum_path, read_rows
from siamtransfer.utils.files import atomic_write, write_all
from siamtransfer.utils.strict_json import to_json

Row = dict[str, Any]


class _Kept(NamedTuple):
    """What stays of the files of a run that goes on: bytes of the rows, bytes of the checksums, number of
    rows, CRC-32 of all, and the rows of the last step."""

    rows: int
    checksums: int
    number: int
    crc: int
    recent: list[Row]


class JournalFile:
    """metrics.jsonl and its checksums, open to append; with start 0 they are new and empty, else the rows
    after step `start` are dropped.

    Every row that stays is compared with its checksum, in one pass that holds no more than a row.

    Attributes:
        path: metrics.jsonl.
        count: the number of its rows.
        recent: those of the last step, where rows were kept.

    Raises:
        UserError: a row that stays is damaged or lost, or the files cannot be written.
        OSError: they cannot be opened.
    """

    def __init__(self, path: Path, start: int):
        self.path, self._beside = path, checksum_path(path)
        kept = _scan(path, self._beside, start) if start else None
        if kept is None:
            kept = _written_anew(path, self._beside, read_rows(path, up_to=start) if start else [])
        self.count, self._crc, self.recent = kept.number, kept.crc, kept.recent
        self._lengths = [kept.rows, kept.checksums]
        self._files: list[int] = []
        for name, length in zip((path, self._beside), self._lengths, strict=True):
            self._files.append(os.open(name, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))
            os.ftruncate(self._files[-1], length)

    def append(self, row: Row) -> None:
        """Writes a row, then its checksum: both are in the files when this returns, or neither is.

        Raises:
            OSError: they cannot be written.
        """
        line = to_json(row).encode()
        crc = zlib.crc32(line, self._crc)
        texts = (line + b"\n", checksum_line(row["step"], crc) + b"\n")
        try:
            for file, text in zip(self._files, texts, strict=True):
                write_all(file, text)
        except OSError:
            for file, length in zip(self._files, self._lengths, strict=True):
                with contextlib.suppress(OSError):
                    os.ftruncate(file, length)
            raise
        self._crc, self.count = crc, self.count + 1
        self._lengths = [before + len(text) for before, text in zip(self._lengths, texts, strict=True)]

    def latest(self, name: str) -> tuple[int, float] | None:
        """The step and value of the last row that has the number `name`; found from the end of the file, also
        after it was closed."""
        key = json.dumps(name, ensure_ascii=False).encode() + b": "
        with (
            contextlib.suppress(OSError, ValueError),
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as rows,
        ):
            end = len(rows)
            while (found := rows.rfind(key, 0, end)) >= 0:
                begin = rows.rfind(b"\n", 0, found) + 1
                row = json.loads(rows[begin : rows.find(b"\n", found)])
                if row.get(name) is not None:
                    return row["step"], row[name]
                end = begin
        return None

    def close(self) -> None:
        """Closes the files; a second call changes nothing.

        Raises:
            OSError: the disk, over a network, takes what was written only now and refuses it.
        """
        while self._files:
            os.close(self._files.pop())


def _scan(path: Path, beside: Path, start: int) -> _Kept | None:
    """The part of both files up to step `start`; None where they are not as this program writes them, and
    where `read_rows` has to say what is damaged."""
    position, checked, count, crc, last = 0, 0, 0, 0, b""
    recent: list[bytes] = []
    try:
        with path.open("rb") as rows, beside.open("rb") as checksums:
            for checksum in checksums:
                step, _, value = checksum.partition(b" ")
                if not step.isdigit():
                    return None
                if int(step) > start:
                    break
                row = rows.readline()
                begin = b'{"step": ' + step
                crc = zlib.crc32(row[:-1], crc)
                if not row.startswith((begin + b",", begin + b"}")) or value != b"%08x\n" % crc:
                    return None
                position, checked, count = position + len(row), checked + len(checksum), count + 1
                if step != last:
                    recent, last = [], step
                recent.append(row)
            behind = rows.readline()  # a row after the step, or one that was being written
    except OSError:
        return None
    if behind and _step_of(behind) <= start:
        return None
    return _Kept(position, checked, count, crc, [json.loads(row) for row in recent])


def _step_of(line: bytes) -> int:
    """The step of a row; that of no row is behind all others."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return 2**63


def _written_anew(path: Path, beside: Path, rows: list[Row]) -> _Kept:
    """Writes both files, as those of a new run or of an older version are."""
    beside.unlink(missing_ok=True)  # first: a process killed here leaves rows without checksums
    lines, checksums, crc = [to_json(row).encode() + b"\n" for row in rows], [], 0
    for row, line in zip(rows, lines, strict=True):
        crc = zlib.crc32(line[:-1], crc)
        checksums.append(checksum_line(row["step"], crc) + b"\n")
    for name, content in ((path, lines), (beside, checksums)):
        with atomic_write(name) as file:
            file.writelines(content)
    recent = [row for row in rows if row["step"] == rows[-1]["step"]]
    return _Kept(sum(map(len, lines)), sum(map(len, checksums)), len(rows), crc, recent)
