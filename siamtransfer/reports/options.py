"""What a report is made with."""

from __future__ import annotations

from dataclasses import dataclass

from siamtransfer.utils.checks import above


@dataclass(frozen=True)
class ReportOptions:
    """Choices of a report.

    Attributes:
        title: the heading of the page; None: made of what it shows.
        alpha: level of the tests that tell backbones apart, over all comparisons of the page together.
        seed: of the resamples behind intervals and tests.
        maps: whether maps of images that lie in the folders are shown.
        map_files: maps elsewhere.
        tables: a folder for the tables as Markdown, LaTeX and CSV; None: they are in the page alone.
        card: a file for the model card of the one backbone, or a folder for those of several.
        index: whether a folder of records keeps its index (leaderboard/), which a later report reads faster.
    """

    title: str | None = None
    alpha: float = 0.05
    seed: int = 0
    maps: bool = True
    map_files: tuple[str, ...] = ()
    tables: str | None = None
    card: str | None = None
    index: bool = True

    def check(self) -> None:
        """Raises UserError for a level that is none."""
        above("--alpha", self.alpha, 0)
        if self.alpha >= 1:
            from siamtransfer.utils.errors import UserError

            raise UserError(f"--alpha is {self.alpha:g}, but must be below 1, such as 0.05")
