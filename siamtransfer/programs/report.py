"""Makes one page of HTML that says how good backbones are and for what; it opens anywhere, without a network.

    siamtransfer report runs/suites/quick quick.html                a suite's folder
    siamtransfer report a.json b.json pair.html                     records, which evaluators write (--record)
    siamtransfer report runs/demo records leaderboard.html          a run of pretraining, and many records
    siamtransfer report records page.html --tables tables           also Markdown, LaTeX and CSV files
    siamtransfer report records page.html --card cards              also model cards for the Hub

The page says which backbone is best for what, which cannot be told apart, what beats the baselines, and what
is missing, with the command that measures it. Numbers of unlike protocols are never ranked together.
docs/REPORT.md describes the page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from siamtransfer.cli import Command, run
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError


@dataclass
class ReportCommand:
    """What is reported, and where the page goes."""

    positional: ClassVar[tuple[str, ...]] = ("paths",)
    common: ClassVar[tuple[str, ...]] = ("paths", "title", "tables", "card", "maps", "map", "alpha")

    paths: list[str] = field(default_factory=list)
    """Records, runs, suites and folders of them; the page, OUT.html, comes last."""
    title: str | None = None
    """Heading of the page; null: made of what it shows."""
    tables: str | None = None
    """Write the tables into this folder, too: scores.md, scores.tex, scores.csv, numbers.csv."""
    card: str | None = None
    """Write the model card there, too: CARD.md of one backbone, or a folder for those of several."""
    maps: bool = True
    """Show maps of images that lie in the folders (siamtransfer map writes them)."""
    map: list[str] = field(default_factory=list)
    """Show these maps, too (MAP.npz)."""
    index: bool = True
    """Keep index.json in every folder that is named: which numbers there are, and of what."""
    alpha: float = 0.05
    """Level of the tests that tell backbones apart, over all comparisons of the page together."""
    seed: int = 0
    """Decides the resamples behind tests and intervals."""

    def check(self) -> None:
        """Raises UserError where sources or the page are not named."""
        if len(self.paths) < 2:
            raise UserError(
                "name what to report and, last, the page: siamtransfer report RECORDS... OUT.html"
            )
        at_least("--seed", self.seed, 0)


def report(command: ReportCommand) -> dict[str, Any]:
    """Writes the page and returns the record."""
    command.check()
    from siamtransfer.reports import ReportOptions, write_report

    *paths, out = command.paths
    options = ReportOptions(
        title=command.title,
        alpha=command.alpha,
        seed=command.seed,
        maps=command.maps,
        map_files=tuple(command.map),
        tables=command.tables,
        card=command.card,
        index=command.index,
    )
    return write_report(paths, out, options)


main = Command("report", ReportCommand, report, __doc__)

if __name__ == "__main__":
    run(main)
