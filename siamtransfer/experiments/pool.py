"""Cells side by side, a process each, until all are measured or a signal comes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait

from siamtransfer.distributed.signals import StopSignal
from siamtransfer.experiments.cell import Cell, measure
from siamtransfer.suites.cell_process import CellProcess, Job, Outcome
from siamtransfer.utils.log import say

_LOOK_SECONDS = 0.25
_GRACE_SECONDS = 60.0


def measure_all(
    cells: Sequence[Cell], at_once: int, stop: StopSignal, end: Callable[[Cell, Outcome, float], None]
) -> None:
    """Measures the cells in their order, `at_once` at a time; `end` is called with what became of each and
    the seconds that it took. A cell that a signal ends has no record, and is measured again next time."""
    waiting = list(cells)
    running: dict[CellProcess, tuple[Cell, float]] = {}
    try:
        while (waiting and stop.exit_status is None) or running:
            while waiting and len(running) < at_once and stop.exit_status is None:
                cell = waiting.pop(0)
                running[_start(cell)] = (cell, time.monotonic())
            if stop.exit_status is not None:
                _end_all(running)
                return
            ready = wait([process.sentinel for process in running], _LOOK_SECONDS)
            for process in [process for process in running if process.sentinel in ready]:
                cell, began = running.pop(process)
                end(cell, process.outcome(), time.monotonic() - began)
    finally:
        for process in running:
            process.kill()


def _start(cell: Cell) -> CellProcess:
    """Begins a cell; what an earlier try has left goes, for a run that was killed is not a whole one."""
    shutil.rmtree(cell.folder, ignore_errors=True)
    cell.log.unlink(missing_ok=True)
    return CellProcess(Job(log=str(cell.log), call=measure, argument=cell))


def _end_all(running: dict[CellProcess, tuple[Cell, float]]) -> None:
    say(f"stopping: {', '.join(cell.id for cell, _ in running.values())} will be measured again")
    for process in running:
        process.stop()
    until = time.monotonic() + _GRACE_SECONDS
    for process in list(running):
        wait([process.sentinel], max(0.0, until - time.monotonic()))
        process.kill()
        del running[process]
