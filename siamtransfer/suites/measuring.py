"""One run of a suite in its folder: what is to do, doing it, and keeping what became of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path

from siamtransfer.cli.main import program
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.suites.backbones import SuiteBackbone
from siamtransfer.suites.cell import Cell, name_cells
from siamtransfer.suites.cell_process import CellProcess, Job, Outcome
from siamtransfer.suites.config import SuiteConfig
from siamtransfer.suites.folder import SuiteFolder
from siamtransfer.suites.open_sets import Images, OpenedSets, key_of, open_sets, sets_of
from siamtransfer.suites.progress import SuiteProgress
from siamtransfer.suites.runner import Hands, Runner
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

_NAMED_DIFFERENCES = 3


@dataclass
class Prepared:
    """A suite that is ready to run.

    Attributes:
        cells: those that are asked for, all checked.
        known: the ids of all cells of the suite.
    """

    name: str
    cells: list[Cell]
    known: frozenset[str]
    out: Path
    config: SuiteConfig


@dataclass(frozen=True)
class Sets:
    """The images of a suite: those that could be opened, and the cells whose images could not, and why."""

    opened: OpenedSets
    missing: dict[Cell, str]


def open_images_of(prepared: Prepared, stop: StopSignal) -> Sets | None:
    """Opens the images of all cells, in a process of its own; None where a signal came.

    Raises:
        UserError: images cannot be opened, and --skip-missing is not given, or none can.
    """
    process = CellProcess(Job(call=open_sets, argument=sets_of(prepared.cells)))
    while not wait([process.sentinel, process.results], 0.25):
        if stop.exit_status is not None:
            process.kill()
            break
    outcome = process.outcome()
    if stop.exit_status is not None:
        return None
    if not isinstance(outcome.value, OpenedSets):
        raise UserError(f"the images of the suite could not be opened: {outcome.message}")
    return Sets(outcome.value, find_missing(prepared, outcome.value))


def find_missing(prepared: Prepared, opened: OpenedSets) -> dict[Cell, str]:
    """The cells whose images cannot be opened here, and why.

    Raises:
        UserError: there are some, and --skip-missing is not given; or there are no others.
    """
    cells = prepared.cells
    missing = {cell: why for cell in cells if (why := _why_missing(cell, opened))}
    by_reason: dict[str, list[Cell]] = {}
    for cell, why in missing.items():
        by_reason.setdefault(why, []).append(cell)
    sentences = [f"{why} (for {name_cells(of_one)})" for why, of_one in by_reason.items()]
    if missing and (not prepared.config.skip_missing or len(missing) == len(cells)):
        rest = "" if len(missing) == len(cells) else "; --skip-missing measures the rest"
        where = "; --roots SET=FOLDER says where one is" if any(cell.set for cell in missing) else ""
        raise UserError(f"sets cannot be opened: {'; '.join(sentences)}{where}{rest}")
    for sentence in sentences:
        say(f"not measured: {sentence}")
    return missing


def _why_missing(cell: Cell, opened: OpenedSets) -> str | None:
    if cell.images is not None:
        return opened.missing.get(key_of(cell.images))
    if cell.root is not None and not Path(cell.root).expanduser().exists():
        return f"the folder {cell.root} does not exist"
    return None


class Measuring:
    """Measures what a suite's folder does not have.

    Attributes:
        measured: how many cells were measured.
        done_before: how many were there.
        missing: the cells whose images are not there, and why; with --skip-missing.
        failed: the cells that failed, now or before.
        left: how many cells a signal has left to do.
    """

    def __init__(self, prepared: Prepared, sets: Sets, folder: SuiteFolder, stop: StopSignal):
        self.prepared, self.folder, self.stop = prepared, folder, stop
        self._opened, self.missing = sets.opened, sets.missing
        self.measured = self.done_before = self.left = 0
        self.failed: list[Cell] = []
        self._stamps: dict[str, str] = {}
        self._progress = SuiteProgress([], 1)

    def measure(self) -> None:
        """Measures everything that is to do, or until a signal comes.

        Raises:
            UserError: the folder has cells of other options, weights or images.
        """
        cells, config = self.prepared.cells, self.prepared.config
        self._stamps = {label: backbone.stamp() for label, backbone in self._backbones.items()}
        to_do = self._to_do([cell for cell in cells if cell not in self.missing])
        self.folder.remark_strangers(self.prepared.known)
        self.folder.plan(cells, self._stamps, {cell.id: why for cell, why in self.missing.items()})
        self.left = len(to_do)
        hands = self._hands()
        self._progress = SuiteProgress(to_do, hands.count)
        many = "s" * (len(cells) != 1)
        say(f"{len(cells)} measurement{many}, {self.done_before} done and {len(to_do)} to do")
        if config.cache == "none" and len(to_do) > 1:
            say("--cache none: every measurement computes its features anew")
        Runner(hands, self.stop, self._begin, self._end).run(to_do)

    @property
    def _backbones(self) -> dict[str, SuiteBackbone]:
        return {cell.backbone.label: cell.backbone for cell in self.prepared.cells}

    def _images_of(self, cell: Cell) -> Images | None:
        return None if cell.images is None else self._opened.images[key_of(cell.images)]

    def _to_do(self, cells: list[Cell]) -> list[Cell]:
        """The cells that are to be measured.

        Raises:
            UserError: some were measured with something else, and --replace is not given.
        """
        config, to_do, others = self.prepared.config, [], []
        for cell in cells:
            differences = self.folder.differences(
                cell, self._stamps[cell.backbone.label], self._images_of(cell)
            )
            if differences:
                to_do.append(cell)
                others.append(f"{cell.id} ({', '.join(differences[:_NAMED_DIFFERENCES])})")
            elif self.folder.is_done(cell):
                self.done_before += 1
            elif (failure := self.folder.failure(cell)) is not None and not config.retry_failed:
                say(f"{cell.id} has failed before: {failure['message']}")
                self.failed.append(cell)
            else:
                to_do.append(cell)
        if others and not config.replace:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise UserError(
                f"{self.prepared.out} has measurements of something else: {others[0]}{more}; --replace "
                "measures them again, or take another folder (--out), or give the backbone another label"
            )
        return to_do

    def _hands(self) -> Hands:
        """How many cells run at once, and where."""
        config = self.prepared.config
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = [name for name in visible if name] or [str(n) for n in range(self._opened.gpus)]
        gpus = () if config.device not in ("auto", "cuda") else tuple(names[: self._opened.gpus])
        count = config.parallel or max(1, len(gpus))
        return Hands(count, gpus if count > 1 else ())

    def _begin(self, cell: Cell) -> str | tuple[str, ...]:
        """Makes room for a cell; returns its command, or why it cannot run."""
        self._progress.begin(cell)
        if cell.after is not None:
            before = f"{cell.backbone.label}/{cell.after.name}"
            if not self.folder.has(before):
                return f"it needs {before}, which was not measured"
        try:
            self.folder.clear(cell)
        except UserError as error:
            return str(error)
        return resuming(cell)

    def _end(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        """Keeps what became of a cell."""
        if outcome.exit_status and self.stop.exit_status is not None:
            return  # the signal ended it
        if not outcome.exit_status and not cell.record.is_file():
            outcome = replace(outcome, exit_status=1, message=f"the program left no record {cell.record}")
        self._progress.end(cell, outcome, seconds)
        self.left -= 1
        if outcome.exit_status:
            self.failed.append(cell)
            self.folder.fail(cell, outcome.message, outcome.exit_status)
            return
        self.measured += 1
        self.folder.finish(cell, self._stamps[cell.backbone.label], self._images_of(cell), seconds)


def resuming(cell: Cell) -> tuple[str, ...]:
    """The command of a cell, with --resume where the program keeps a state and an earlier one is there."""
    run = cell.options.get("run")
    folder = None if run is None else Path(cell.fill(str(run)))
    if folder is None or not folder.is_dir() or not any(folder.iterdir()):
        return cell.command
    return (*cell.command, "--resume") if "--resume" in program(cell.task.program).flags() else cell.command
