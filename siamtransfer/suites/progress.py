"""What a suite says while it runs: which cell of how many, what it measured, how long the rest will take."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from siamtransfer.leaderboard.columns import numbers_of
from siamtransfer.suites.cell import Cell
from siamtransfer.suites.cell_process import Outcome
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.json_file import read_json
from siamtransfer.utils.log import say


class SuiteProgress:
    """Counts the cells of a suite, of which `hands` run side by side."""

    def __init__(self, cells: list[Cell], hands: int):
        self._left = list(cells)
        self._total, self._hands, self._begun = len(cells), hands, 0
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def begin(self, cell: Cell) -> None:
        """Says that a cell begins."""
        self._begun += 1
        say(f"[{self._begun} of {self._total}] {cell.id} …")

    def end(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        """Says what a cell gave."""
        self._left.remove(cell)
        if outcome.exit_status:
            say(f"{cell.id} failed: {outcome.message} (see {cell.log})")
            return
        self._seconds[cell.task.name].append(seconds)
        facts = [_time(seconds), *_facts(cell)]
        if self._left:
            facts.append(f"about {_time(self._estimate())} left")
        say(f"{cell.id}: {', '.join(facts)}")
        if outcome.message:
            say(f"{cell.id} is measured, but {outcome.message}")

    def _estimate(self) -> float:
        """Seconds for what is left: for each cell the mean of those of its task, or of all."""
        everything = [seconds for each in self._seconds.values() for seconds in each]
        mean = sum(everything) / len(everything)
        expected = (
            sum(known) / len(known) if (known := self._seconds.get(cell.task.name)) else mean
            for cell in self._left
        )
        return sum(expected) / self._hands


def _facts(cell: Cell) -> list[str]:
    """The number that a board shows first, or else the first of the record, and the images a second."""
    try:
        record: dict[str, Any] = read_json(cell.record)
        numbers = {name: value for name, value in record["metrics"].items() if isinstance(value, int | float)}
    except (UserError, KeyError, TypeError, AttributeError):
        return []
    main = [name for name in numbers_of(record, "main") if name in numbers]
    facts = [f"{name} {numbers[name]:.4g}" for name in (main or list(numbers))[:1]]
    rate = (record.get("provenance", {}).get("cost") or {}).get("images_per_second")
    return [*facts, *([f"{rate:.0f} images/s"] if rate else [])]


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
