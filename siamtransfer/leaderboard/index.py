"""The index of a folder of records: FOLDER/index.json, which says what was measured of what, and where.

An entry is a number of a backbone under one protocol: the record's file with its digest, the value and its
interval. The index is made of the records and can be removed at any time. Files of the size and time of the
last index are not read again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from siamtransfer.leaderboard.boards import board
from siamtransfer.leaderboard.collection import collect_all, json_files_below, read_if_record
from siamtransfer.leaderboard.measurement import parts_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file, write_text
from siamtransfer.utils.json_file import read_json
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json
from siamtransfer.utils.text import printable

NAME = "index.json"
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A number of a backbone under one protocol.

    Attributes:
        record: path of the record's file, from the folder of the index.
        record_digest: SHA-256 of the file.
        backbone, reading: digests, see BackboneId.
        source: the backbone's file or name.
        task, metric, protocol_key: those of the number's column; equal ones may stand side by side.
        images: digest of the scored images.
        value, low, high: the number, and the ends of its 95 % interval or None.
        time: when it was measured, as the record has it.
    """

    record: str
    record_digest: str
    backbone: str
    reading: str
    source: str
    task: str
    metric: str
    protocol_key: str
    images: str
    value: float
    low: float | None
    high: float | None
    time: str


@dataclass(frozen=True)
class _File:
    """A file as it was when its entries were made."""

    size: int
    mtime_ns: int
    entries: list[Entry]


def update_index(folder: str | Path) -> list[Entry]:
    """Brings FOLDER/index.json up to date with the records in the folder and in all below it, and returns its
    entries. A damaged index is made anew, and damaged records are left out, both of which is said.

    Raises:
        UserError: the folder cannot be read, or the index cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{printable(folder)} is no folder, and an index is kept of a folder of records")
    old = _read(folder / NAME)
    new: dict[str, _File] = {}
    for file in json_files_below(folder):
        name = file.relative_to(folder).as_posix()
        if name == NAME:
            continue
        try:
            status = file.stat()
        except OSError as error:
            say(f"note: left out: {printable(file)} cannot be read: {error.strerror}")
            continue
        known = old.get(name)
        if known is None or (known.size, known.mtime_ns) != (status.st_size, status.st_mtime_ns):
            known = _File(status.st_size, status.st_mtime_ns, _entries_of(file, name))
        new[name] = known
    if new != old:
        files = {name: asdict(file) for name, file in new.items()}
        write_text(folder / NAME, to_json({"version": VERSION, "files": files}) + "\n")
    return [entry for file in new.values() for entry in file.entries]


def _entries_of(file: Path, name: str) -> list[Entry]:
    """The entries of a file; none where it is no record of a backbone."""
    try:
        document = read_if_record(file)
    except UserError as error:
        say(f"note: left out: {error}")
        return []
    if document is None or not any(True for _ in parts_of(document)):
        return []
    cells = board(collect_all([file]).measurements, "all").cells
    digest = digest_of_file(file)
    return [
        Entry(
            name,
            digest,
            backbone.digest,
            backbone.reading,
            cell.measurement.source,
            column.task,
            column.metric,
            column.protocol_key,
            column.images,
            cell.value,
            cell.low,
            cell.high,
            cell.measurement.time,
        )
        for (backbone, column), cell in cells.items()
    ]


def _read(path: Path) -> dict[str, _File]:
    """The files of an index; empty where there is none, or a damaged one, which is said."""
    if not path.exists():
        return {}
    try:
        content = read_json(path)
        if content["version"] != VERSION:
            return {}
        return {name: _file_from(file) for name, file in content["files"].items()}
    except (UserError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        if isinstance(error.__cause__, OSError):
            raise
        say(f"note: {printable(path)} is no index or a damaged one: it is made anew from the records")
        return {}


def _file_from(content: dict[str, Any]) -> _File:
    entries: Iterable[dict[str, Any]] = content["entries"]
    return _File(int(content["size"]), int(content["mtime_ns"]), [Entry(**entry) for entry in entries])
