"""Runs the cells of a suite: one after the other, or side by side on several GPUs or processors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait

from siamtransfer.distributed.signals import StopSignal
from siamtransfer.suites.cell import Cell
from siamtransfer.suites.cell_process import CellProcess, Job, Outcome
from siamtransfer.utils.log import say

GRACE_SECONDS = 240.0  # how long a program may take to end what is under way, as torchrun's
_LOOK_SECONDS = 0.25


@dataclass
class Hands:
    """What measures side by side.

    Attributes:
        count: how many cells run at once.
        gpus: the GPU of each, in CUDA_VISIBLE_DEVICES' numbering; empty on the CPU or where all see all.
    """

    count: int = 1
    gpus: tuple[str, ...] = ()

    def job(self, cell: Cell, command: tuple[str, ...], hand: int) -> Job:
        """The job of a cell on one of the hands."""
        environment = {}
        if self.gpus and not cell.task.alone:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[hand % len(self.gpus)]
        threads = max(1, len(os.sched_getaffinity(0)) // self.count) if self.count > 1 else None
        return Job(
            command,
            str(cell.log),
            None if cell.keeps_record else str(cell.record),
            environment,
            None if cell.task.alone else threads,
        )


@dataclass
class _Running:
    cell: Cell
    process: CellProcess
    began: float


@dataclass
class Runner:
    """Runs cells; those of a group in their order on one hand, groups side by side, and last, one by one,
    those that want to be alone.

    Attributes:
        begin: called before a cell runs; returns its command, or in a sentence why it cannot run.
        end: called with a cell, its outcome and the seconds that it took.
    """

    hands: Hands
    stop: StopSignal
    begin: Callable[[Cell], str | tuple[str, ...]]
    end: Callable[[Cell, Outcome, float], None]
    _running: dict[int, _Running] = field(default_factory=dict)

    def run(self, cells: Sequence[Cell]) -> None:
        """Runs all of them, or as many as there are until a signal comes."""
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            if not cell.task.alone:
                groups.setdefault((cell.backbone.label, cell.group), []).append(cell)
        try:
            self._run_groups(list(groups.values()), self.hands.count)
            self._run_groups([[cell] for cell in cells if cell.task.alone], 1)
        finally:
            for running in self._running.values():
                running.process.kill()

    def _run_groups(self, groups: list[list[Cell]], hands: int) -> None:
        queues: dict[int, list[Cell]] = {hand: [] for hand in range(hands)}
        waiting = list(groups)
        while self.stop.exit_status is None:
            for hand, queue in queues.items():
                while hand not in self._running and self.stop.exit_status is None:
                    if not queue and waiting:
                        queue.extend(waiting.pop(0))
                    if not queue:
                        break
                    self._start(queue.pop(0), hand)
            if not self._running:
                return
            self._collect(_LOOK_SECONDS)
        self._end_running()

    def _start(self, cell: Cell, hand: int) -> None:
        command = self.begin(cell)
        if isinstance(command, str):
            self.end(cell, Outcome(1, command), 0.0)
            return
        process = CellProcess(self.hands.job(cell, command, hand))
        self._running[hand] = _Running(cell, process, time.monotonic())

    def _collect(self, seconds: float) -> None:
        """Takes the outcomes of the processes that have ended, or end within `seconds`."""
        ready = wait([running.process.sentinel for running in self._running.values()], seconds)
        for hand, running in list(self._running.items()):
            if running.process.sentinel in ready:
                del self._running[hand]
                self.end(running.cell, running.process.outcome(), time.monotonic() - running.began)

    def _end_running(self) -> None:
        """Asks all programs to end, and waits for them."""
        if not self._running:
            return
        names = ", ".join(running.cell.id for running in self._running.values())
        say(f"stopping: {names} {'ends' if len(self._running) == 1 else 'end'} what is under way")
        for running in self._running.values():
            running.process.stop()
        until = time.monotonic() + GRACE_SECONDS
        while self._running and time.monotonic() < until:
            self._collect(_LOOK_SECONDS)
