"""The folder of a suite: which cells are done and by what, which have failed, and that one suite writes it.

    OUT/suite.json                     what is planned; how every cell that is done was measured
    OUT/BACKBONE/CELL.json, .npz       its record and predictions
    OUT/BACKBONE/CELL.log              what the program said
    OUT/BACKBONE/CELL.failed.json      the message of a cell that failed

A cell is done where suite.json says so and its files have the digests that stand there. So a record that
was damaged or exchanged is measured again, and one that a killed suite has left half-known, too.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from siamtransfer.suites.cell import Cell
from siamtransfer.suites.state import SuiteState, state_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file, write_checked_text, write_text
from siamtransfer.utils.json_file import read_checked_json, read_json
from siamtransfer.utils.log import say
from siamtransfer.utils.run_lock import RunLock
from siamtransfer.utils.strict_json import to_json
from siamtransfer.utils.text import first_few

FILE = "suite.json"
State = Literal["done", "to do", "failed", "not measured"]


class SuiteFolder:
    """A suite's folder, which nobody else writes until `close`.

    Raises:
        UserError: it cannot be written, is in use, holds something else, or its suite.json is
            damaged.
    """

    def __init__(self, folder: Path, suite: str):
        self.folder, self.file = folder, folder / FILE
        if (
            folder.is_dir()
            and not self.file.exists()
            and any(each.name != "lock" for each in folder.iterdir())
        ):
            raise UserError(
                f"the folder {folder} holds something else than a suite (it has no {FILE}): name another "
                "with --out"
            )
        self._lock = RunLock(folder, what="suite's folder", option="--out")
        self.state = read_state(self.file) if self.file.exists() else SuiteState(suite)
        if self.state.suite != suite:
            raise UserError(
                f"the folder {folder} holds the suite {self.state.suite}, not {suite}: name another with "
                "--out"
            )

    def close(self) -> None:
        """Frees the folder."""
        self._lock.release()

    def __enter__(self) -> SuiteFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def plan(self, cells: Sequence[Cell], stamps: Mapping[str, str], missing: Mapping[str, str]) -> None:
        """Writes the plan into suite.json; `missing` says why cells cannot be measured."""
        for cell in cells:
            label = cell.backbone.label
            self.state.planned[cell.id] = list(cell.command)
            self.state.backbones[label] = {"source": cell.backbone.source, "stamp": stamps[label]}
            self.state.not_measured.pop(cell.id, None)
        self.state.not_measured |= missing
        self.save()

    def remark_strangers(self, known: Collection[str]) -> None:
        """Says which records of the folder are of none of the `known` cells."""
        strangers = [name for name in self.state.cells if name not in known]
        if strangers:
            say(
                f"{self.folder} also has {len(strangers)} records that the suite does not ask for now, which "
                f"stay and stand in the report: {first_few(strangers)}"
            )

    def has(self, name: str) -> bool:
        """Whether the cell of that id is done."""
        return name in self.state.cells

    def differences(self, cell: Cell, stamp: str, images: Mapping[str, Any] | None) -> list[str]:
        """In what a done cell differs from what is asked for now; empty where it does not, or is not done."""
        entry = self.state.cells.get(cell.id)
        if entry is None:
            return []
        found = []
        if entry["weights"] != stamp:
            found.append("other weights")
        if images is not None and entry["images"] is not None and entry["images"] != images:
            found.append("other images")
        was, now = entry["identity"], json.loads(to_json(cell.identity))
        changed = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
        return found + [f"{key} {_shown(was, key)} instead of {_shown(now, key)}" for key in changed]

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell was measured and its files are as they were written."""
        entry = self.state.cells.get(cell.id)
        if entry is None:
            return False
        for name, digest in entry["files"].items():
            path = self.folder / name
            if not path.is_file() or digest_of_file(path) != digest:
                say(f"{cell.id} is measured again: {path} is not as it was written")
                return False
        return True

    def failure(self, cell: Cell) -> dict[str, Any] | None:
        """What is kept of a cell that failed with these options; None where it has not."""
        try:
            kept: dict[str, Any] = read_json(cell.failure)
            same = kept["identity"] == json.loads(to_json(cell.identity))
        except (UserError, KeyError, TypeError):
            return None
        return kept if same and isinstance(kept.get("message"), str) else None

    def clear(self, cell: Cell) -> None:
        """Removes what earlier attempts have left of a cell that is measured now.

        Raises:
            UserError: there is a record that this suite has not written.
        """
        known = self.state.cells.pop(cell.id, None) is not None
        if cell.record.exists() and not known and not _is_own(cell):
            raise UserError(
                f"{cell.record} is no record of this suite: move it away, or name another folder with --out"
            )
        self.save()
        for path in [*_files_of(cell), cell.failure, *cell.writes]:
            if path.is_file():
                path.unlink()
        run = Path(cell.fill(str(cell.options.get("run") or "")))
        if known and self.folder in run.parents and run.is_dir():  # the state of another measurement
            shutil.rmtree(run)

    def finish(self, cell: Cell, stamp: str, images: Mapping[str, Any] | None, seconds: float) -> None:
        """Notes that the cell is done."""
        files = [*_files_of(cell), *(path for path in cell.writes if path.is_file())]
        self.state.cells[cell.id] = {
            "identity": cell.identity,
            "weights": stamp,
            "images": images,
            "files": {str(path.relative_to(self.folder)): digest_of_file(path) for path in files},
            "seconds": round(seconds, 3),
            "time": _now(),
        }
        self.save()

    def fail(self, cell: Cell, message: str, exit_status: int) -> None:
        """Keeps the message of a cell that failed."""
        kept = {
            "command": ["siamtransfer", *cell.command],
            "message": message,
            "exit": exit_status,
            "identity": cell.identity,
            "time": _now(),
        }
        self._lock.require_place()
        write_text(cell.failure, json.dumps(json.loads(to_json(kept)), indent=1, ensure_ascii=False) + "\n")

    def save(self) -> None:
        """Writes suite.json atomically.

        Raises:
            UserError: the folder was removed or renamed meanwhile, or cannot be written.
        """
        self._lock.require_place()
        sections = [f"{to_json(name)}: {_lines(value)}" for name, value in vars(self.state).items()]
        write_checked_text(self.file, "{\n" + ",\n".join(sections) + "\n}\n")


def read_state(path: Path) -> SuiteState:
    """Reads a suite.json.

    Raises:
        UserError: it cannot be read or is damaged.
    """
    cure = "move it away, and the suite measures everything again, or name another folder with --out"
    try:
        return state_of(read_checked_json(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        reason = str(error) if str(error).startswith("is damaged") else "is not the file of a suite"
        raise UserError(f"{path} {reason}: {cure}") from error


def _lines(section: str | Mapping[str, Any]) -> str:
    """A part of suite.json, an entry a line: a suite of 10,000 cells writes the file as often."""
    if isinstance(section, str) or not section:
        return to_json(section)
    entries = [f" {to_json(name)}: {to_json(entry)}" for name, entry in section.items()]
    return "{\n" + ",\n".join(entries) + "\n}"


def _files_of(cell: Cell) -> list[Path]:
    """The record, those that a program writes beside it under its name, and their predictions."""
    folder, stem = cell.base.parent, cell.base.name
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.partition(".")[0] == stem and path.suffix in (".json", ".npz") and path != cell.failure
    )


def _is_own(cell: Cell) -> bool:
    """Whether a record that suite.json does not know is of a suite that was killed before it noted it."""
    try:
        command = read_json(cell.record)["provenance"]["command"]
        return bool(command[1:] == list(cell.command))
    except (UserError, KeyError, TypeError):
        return False


def _shown(identity: Mapping[str, Any], key: str) -> str:
    return json.dumps(identity[key], ensure_ascii=False) if key in identity else "the default"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
