"""The table on stderr: a line for each finding, as it comes."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape

from siamtransfer.doctor.findings import Finding
from siamtransfer.utils.log import LOGGER, say

COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red", "INFO": "cyan", "SKIP": "dim"}


class Table:
    """Prints findings: in colours and under headings on a terminal, as plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._group: str | None = None
        self._counts: Counter[str] = Counter()

    def add(self, group: str, found: Finding) -> None:
        """Prints one finding of the check `group`."""
        self._counts[found.status] += 1
        if not LOGGER.handlers:  # a notebook, which reads the record
            return
        if not self._console.is_terminal:
            say(f"{found.status}  {found.name}  {found.text}")
            return
        if group != self._group:
            self._group = group
            self._console.print(f"\n[bold]{escape(group)}[/bold]")
        colour = COLOURS[found.status]
        self._console.print(
            f"  [{colour}]{found.status}[/{colour}]  {escape(found.name)}  [dim]{escape(found.text)}[/dim]",
            highlight=False,
        )

    def close(self) -> None:
        """Prints how many there were of each kind."""
        say("; ".join(f"{count} {status}" for status, count in sorted(self._counts.items())))
