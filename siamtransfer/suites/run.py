"""A suite from its options to its folder of records: what the program `suite` does."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from siamtransfer.cli.shipped import find_config
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.records.record import record
from siamtransfer.suites.backbones import find_backbones
from siamtransfer.suites.cell import name_cells
from siamtransfer.suites.config import SuiteConfig
from siamtransfer.suites.folder import FILE, SuiteFolder, read_state
from siamtransfer.suites.measuring import Measuring, Prepared, open_images_of
from siamtransfer.suites.plan import build_plan, check_cells, choose
from siamtransfer.suites.suite_file import read_suite
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def prepare(config: SuiteConfig) -> Prepared:
    """Reads the suite, and parses and checks every cell; nothing is opened or written.

    Raises:
        UserError: something is missing, unknown or contradictory; names option, file and key.
    """
    config.check()
    assert config.config is not None
    file = find_config(config.config, ("suites",))
    suite = read_suite(file)
    backbones = find_backbones(config.checkpoints, suite.backbones, str(file))
    out = Path(config.out) if config.out else Path("runs") / "suites" / file.stem
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, and a suite is kept in a folder: name another")
    everything = build_plan(suite, backbones, config, out)
    cells = choose(everything, config.only, config.skip)
    check_cells(cells, suite)
    return Prepared(file.stem, cells, frozenset(cell.id for cell in everything), out, config)


def run_suite(config: SuiteConfig) -> dict[str, Any]:
    """Measures what is not measured yet, ranks the backbones and writes the report; returns the record.

    Raises:
        UserError: nothing can run, or at the end: measurements have failed.
        SystemExit: a signal stopped it; the same command goes on.
    """
    prepared = prepare(config)
    with StopSignal() as stop:
        stop.doing = "ending the present measurement"
        sets = open_images_of(prepared, stop)
        if sets is None:
            say("stopped on a signal before anything was measured")
            sys.exit(stop.exit_status)
        with SuiteFolder(prepared.out, prepared.name) as folder:
            measuring = Measuring(prepared, sets, folder, stop)
            measuring.measure()
    if stop.exit_status is not None:
        say(f"stopped on a signal with {measuring.left} left to measure: the same command goes on")
        sys.exit(stop.exit_status)
    _show(prepared)
    if measuring.failed:
        raise UserError(
            f"{len(measuring.failed)} of {len(prepared.cells)} measurements failed: "
            f"{name_cells(measuring.failed)}; CELL.failed.json says why, and --retry-failed tries again"
        )
    counts: dict[str, float] = {
        "suite/measurements": len(prepared.cells),
        "suite/measured_now": measuring.measured,
        "suite/done_before": measuring.done_before,
        "suite/not_measured": len(measuring.missing),
    }
    return record("suite", counts, {"suite": prepared.name}, out=str(prepared.out))


def print_plan(config: SuiteConfig) -> None:
    """Prints the command of every cell, those that are done as comments; runs and writes nothing."""
    prepared = prepare(config)
    file = prepared.out / FILE
    done = set(read_state(file).cells) if file.exists() else set()
    for cell in prepared.cells:
        print(f"{'# done: ' if cell.id in done else ''}siamtransfer {shlex.join(cell.command)}")


def _show(prepared: Prepared) -> None:
    """Says which backbones are better than which, and writes the page."""
    from siamtransfer.leaderboard import board, collect, rank
    from siamtransfer.leaderboard.text import table_lines

    own = board(collect([prepared.out]))
    ranking = rank(own)
    lines = table_lines(own, ranking)
    for line in lines:
        say(line)
    if lines:
        say(f"backbones that share a letter are not told apart at {ranking.alpha:g}, over all tests together")
    for sentence in (*own.remarks, *ranking.remarks):
        say(f"note: {sentence}")
    if prepared.config.report and lines:
        from siamtransfer.reports import write_report

        write_report([prepared.out], prepared.out / "report.html")
