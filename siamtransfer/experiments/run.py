"""What scripts/experiments.py does with a suite: measures what is missing, and shows what is measured."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from siamtransfer.distributed.signals import StopSignal
from siamtransfer.experiments.cell import Cell
from siamtransfer.experiments.pages import with_rows, with_table
from siamtransfer.experiments.pictures import draw
from siamtransfer.experiments.pool import measure_all
from siamtransfer.experiments.records import Records, read_record
from siamtransfer.experiments.suites import TEST, Experiment, ExperimentSuite
from siamtransfer.experiments.tables import table
from siamtransfer.suites.cell_process import Outcome
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_text
from siamtransfer.utils.log import say
from siamtransfer.utils.run_lock import RunLock


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        runs: checkpoints, journals and logs, a folder a suite.
        records: SUITE.jsonl.
        page: Markdown with marks between which the tables stand; pictures go beside it.
    """

    runs: Path
    records: Path
    page: Path


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        seeds: how many of each experiment; None: as many as the suite says.
        at_once: cells that run side by side.
        options: words for pretrain/main.py, in every run.
    """

    seeds: int | None = None
    at_once: int = 1
    options: tuple[str, ...] = ()


def measure_missing(
    suite: ExperimentSuite, experiments: Sequence[Experiment], places: Places, wanted: Wanted
) -> Records:
    """Measures the cells that have no record of the present settings, seed by seed, so that a stopped suite
    has all experiments with the first seeds.

    Raises:
        UserError: another process measures the suite in the same folder; at the end, where cells have
            failed; the others have records.
        SystemExit: a signal came; the same command goes on.
    """
    records = Records(places.records, suite)
    seeds = range(wanted.seeds or suite.seeds)
    cells = [
        Cell(experiment, seed, places.runs, suite.scores, wanted.options)
        for seed in seeds
        for experiment in experiments
        if records.get(experiment, seed) is None
    ]
    if not cells:
        return records
    say(f"{suite.name}: {len(cells)} of {len(seeds) * len(experiments)} cells to measure")
    progress = _Progress(records, len(cells), wanted.at_once)
    with StopSignal() as stop, _locked(places.runs / suite.name):
        stop.doing = "ending the cells that run"
        measure_all(cells, wanted.at_once, stop, progress.end)
    if stop.exit_status is not None:
        say(f"stopped on a signal with {progress.left} cells left to measure: the same command goes on")
        sys.exit(stop.exit_status)
    if progress.failed:
        raise UserError(
            f"{len(progress.failed)} cells of {suite.name} have failed: {'; '.join(progress.failed)}; the "
            "same command tries them again"
        )
    return records


class _Progress:
    """Keeps the records of cells that end, and says how far the suite is."""

    def __init__(self, records: Records, cells: int, at_once: int):
        self.records, self.left, self.at_once = records, cells, at_once
        self.failed: list[str] = []
        self._seconds: list[float] = []

    def end(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        """What became of a cell."""
        self.left -= 1
        if outcome.exit_status:
            self.failed.append(f"{cell.id}: {outcome.message} (see {cell.log})")
            say(f"{cell.id} has failed: {outcome.message}")
            return
        record = read_record(cell.record)
        self.records.add([record])
        self._seconds.append(seconds)
        rest = sum(self._seconds) / len(self._seconds) * self.left / self.at_once
        left = f", about {rest / 60:.0f} min left" if self.left else ""
        say(f"{cell.id}: kNN {record.numbers[TEST]:.2f} %, {seconds:.0f} s{left}")


def _locked(folder: Path) -> RunLock:
    return RunLock(folder, what="folder of the suite's runs", option="--runs")


def measure_again(
    suite: ExperimentSuite, count: int, places: Places, at_once: int = 1, draw_seed: int | None = None
) -> int:
    """Measures random cells that have records a second time, in a folder of its own; returns how many.

    Raises:
        UserError: there is no record, a cell fails, or a number or a curve is another one; names cell and
            numbers.
        SystemExit: a signal came.
    """
    records = Records(places.records, suite)
    known = [record for experiment in suite.experiments for record in records.all_of(experiment).values()]
    if not known:
        raise UserError(f"{records.file} has no record of {suite.name}, so no cell can be measured again")
    drawn = random.Random(draw_seed).sample(known, min(count, len(known)))
    folder = places.runs / f"again-{time.time_ns()}"
    first = {
        Cell(
            suite[record.experiment.partition("/")[2]],
            record.seed,
            folder,
            suite.scores,
            tuple(record.options),
        ): record
        for record in drawn
    }
    differ: list[str] = []

    def compare(cell: Cell, outcome: Outcome, _: float) -> None:
        if outcome.exit_status:
            raise UserError(f"{cell.id} has failed: {outcome.message} (see {cell.log})")
        names = ", ".join(first[cell].differences(read_record(cell.record)))
        say(f"{cell.id}: {f'{names} differ' if names else 'equal in every number and every point'}")
        if names:
            differ.append(f"{cell.id} in {names}")

    with StopSignal() as stop:
        measure_all(list(first), at_once, stop, compare)
    if stop.exit_status is not None:
        sys.exit(stop.exit_status)
    if differ:
        raise UserError(f"a second measurement differs: {'; '.join(differ)}")
    return len(drawn)


def show(suite: ExperimentSuite, places: Places) -> None:
    """Writes the suite's table between its marks in the page, and its pictures beside the page, from the
    records alone. A picture that lacks records is named and not drawn.

    Raises:
        UserError: the page has no such marks, or no record has a curve of a picture.
    """
    records = Records(places.records, suite)
    page = places.page.read_text(encoding="utf-8")
    write_text(places.page, with_table(page, suite.name, table(suite, records), str(places.page)))
    for picture in suite.pictures:
        file = places.page.parent / picture.file
        missing = [name for name in picture.cells if not records.all_of(suite[name])]
        if missing:
            say(f"{file} is not drawn: {suite.name} has no record of {', '.join(missing)}")
            continue
        draw(suite, picture, records, file)
        say(f"wrote {file}")


def show_rows(suites: Mapping[str, ExperimentSuite], places: Places) -> list[Path]:
    """Writes the rows that other pages beside the page ask for; returns the pages that ask for some.

    Raises:
        UserError: a page asks for a suite or an experiment that is not known.
    """
    asking = []
    for file in sorted(places.page.parent.glob("*.md")):
        page = file.read_text(encoding="utf-8")
        if "<!-- rows of " in page:
            asking.append(file)
            write_text(file, with_rows(page, suites, places.records, str(file)))
    return asking
