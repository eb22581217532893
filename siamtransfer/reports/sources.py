"""What a page is made of: everything that the given files and folders hold, read once."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamtransfer.image_map.image_map import ImageMap, is_image_map
from siamtransfer.leaderboard import Board, Measurement, Ranking, board, collect_all, rank
from siamtransfer.reports.conversions import ConversionProof, proofs_in
from siamtransfer.reports.options import ReportOptions
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.folders import files_below
from siamtransfer.utils.json_file import read_json
from siamtransfer.utils.text import printable

JOURNAL, FAILED, PICTURE, SUITE = "metrics.jsonl", ".failed.json", ".png", "suite.json"


@dataclass(frozen=True)
class RunFolderView:
    """What a folder of pretraining says of its run.

    Attributes:
        path: the folder.
        rows: of metrics.jsonl, in the order of their steps.
        config: the run's configuration by section; empty where the folder has none.
    """

    path: Path
    rows: list[dict[str, Any]]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return printable(self.path.resolve().name)


@dataclass(frozen=True)
class Picture:
    """A picture beside records, such as one of attention; `folder` and `name` say whose it is."""

    path: Path

    @property
    def folder(self) -> str:
        """The folder's name, which a suite calls after the backbone."""
        return printable(self.path.resolve().parent.name)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return printable(self.path.stem)


@dataclass(frozen=True)
class CellWithoutRecord:
    """A cell of a suite that failed or could not be measured: whose, the command line, and why."""

    backbone: str
    cell: str
    command: str
    message: str


@dataclass(frozen=True)
class Sources:
    """What a page is made of.

    Attributes:
        board: of every record the main number, backbones x columns.
        ranking: the ranks of the board.
        every: the board of all numbers; its columns are many.
        measurements: the records, in the order of their paths; sections call one by its place here.
        runs, maps, pictures, failed, proofs: what lies beside them.
        left_out: cells that a suite could not measure, such as for a set that is not on the machine.
        remarks: sentences that the reader must know, such as records that stand alone.
        options: of the report.
    """

    board: Board
    ranking: Ranking
    every: Board
    measurements: list[Measurement]
    runs: list[RunFolderView] = field(default_factory=list)
    maps: list[ImageMap] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    failed: list[CellWithoutRecord] = field(default_factory=list)
    left_out: list[CellWithoutRecord] = field(default_factory=list)
    proofs: list[ConversionProof] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    options: ReportOptions = field(default_factory=ReportOptions)

    def place_of(self, measurement: Measurement) -> int:
        """The place of a measurement in `measurements`."""
        return self._places[measurement]

    @functools.cached_property
    def _places(self) -> dict[Measurement, int]:
        return {measurement: place for place, measurement in enumerate(self.measurements)}


def gather(paths: Sequence[str | Path], options: ReportOptions) -> Sources:
    """Reads all that lies in files and folders: records, runs, maps, pictures, cells that failed.

    Raises:
        UserError: a path is absent, a file is damaged, or nothing of all is a measurement or a run.
    """
    roots = [Path(path) for path in paths]
    for root in roots:
        _refuse_other(root)
    files = sorted({file for root in roots for file in (files_below(root) if root.is_dir() else [root])})
    runs = [_run_folder(file.parent) for file in files if file.name == JOURNAL]
    maps = [file for file in files if options.maps and file.suffix == ".npz" and is_image_map(file)]
    maps += [Path(file) for file in options.map_files if Path(file) not in maps]
    records = [root for root in roots if root.is_dir() or root.suffix == ".json"]
    collection = collect_all(records)
    measurements = collection.measurements
    if not (measurements or runs or maps):
        named = ", ".join(map(printable, roots))
        raise UserError(
            f"{named} holds no record, no run and no map: evaluators write records by --record OUT.json, "
            "and siamtransfer suite writes a folder of them"
        )
    main = board(measurements)
    return Sources(
        main,
        rank(main, alpha=options.alpha, seed=options.seed),
        board(measurements, "all"),
        measurements,
        runs,
        [ImageMap.read(file) for file in maps],
        [Picture(file) for file in files if file.suffix == PICTURE],
        [_failed_cell(file) for file in files if file.name.endswith(FAILED)],
        [cell for file in files if file.name == SUITE for cell in _left_out_cells(file)],
        proofs_in(files),
        [*collection.left_out, *main.remarks],
        options,
    )


def _refuse_other(root: Path) -> None:
    """Raises UserError for what is named and is absent, or is no kind of file that a page is made of."""
    if not root.exists():
        raise UserError(f"there is no file or folder {printable(root)}")
    if root.is_dir() or root.suffix in (".json", PICTURE) or (root.suffix == ".npz" and is_image_map(root)):
        return
    raise UserError(
        f"{printable(root)} is no record (.json), no map of images and no folder: name the record that an "
        "evaluator writes by --record, not a checkpoint or predictions"
    )


def _run_folder(folder: Path) -> RunFolderView:
    config = _json_of(folder / "config.json") if (folder / "config.json").exists() else {}
    return RunFolderView(folder, read_rows(folder / JOURNAL), config)


def _failed_cell(file: Path) -> CellWithoutRecord:
    content = _json_of(file)
    command = content.get("command", "")
    words = command if isinstance(command, str) else shlex.join(map(str, command))
    return CellWithoutRecord(
        printable(file.resolve().parent.name),
        printable(file.name.removesuffix(FAILED)),
        words,
        str(content.get("message", "")),
    )


def _left_out_cells(file: Path) -> list[CellWithoutRecord]:
    """What suite.json says of the cells that could not be measured."""
    content = _json_of(file)
    reasons, commands = content.get("not_measured"), content.get("planned")
    if not (isinstance(reasons, dict) and isinstance(commands, dict)):
        return []  # another program's suite.json
    found = []
    for name, reason in reasons.items():
        backbone, _, cell = name.partition("/")
        command = shlex.join(["siamtransfer", *map(str, commands.get(name, ()))])
        found.append(CellWithoutRecord(printable(backbone), printable(cell), command, str(reason)))
    return found


def _json_of(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{printable(file)} holds no JSON object")
    return content
