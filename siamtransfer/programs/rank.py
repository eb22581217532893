"""Ranks backbones by the records of many evaluators, in groups that cannot be told apart.

    siamtransfer rank records/
    siamtransfer rank a.json b.json c.json --alpha 0.01
    siamtransfer rank records/ --tasks knn linear --metrics all

Records stand side by side where task, images, labels and protocol are equal; others stand in columns of their
own, and what they differ in is said. Every pair of backbones is tested in every column, by a paired test on
the kept predictions, and once over all columns. All these tests together call two equal backbones different
with a chance of at most --alpha. Backbones that share a letter are not told apart. For empty cells the
command that fills them is printed; docs/LEADERBOARD.md has the details.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from siamtransfer.cli import Command, run
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

if TYPE_CHECKING:
    from siamtransfer.leaderboard import Board, Measurement, Ranking


@dataclass
class RankOptions:
    """Which records, and how their backbones are ranked."""

    positional: ClassVar[tuple[str, ...]] = ("records",)
    common: ClassVar[tuple[str, ...]] = ("records", "tasks", "metrics", "alpha", "index", "missing")

    records: list[str] = field(default_factory=list)
    """Records (OUT.json, which evaluators write by --record), and folders, searched with all below them."""
    tasks: list[str] = field(default_factory=list)
    """Only these evaluators, such as knn linear; none given: all."""
    metrics: Literal["main", "all"] = "main"
    """main: the number that a task is reported by; all: every number of which one way is better."""
    alpha: float = 0.05
    """The chance that any two equal backbones are called different anywhere."""
    resamples: int | None = None
    """Draws of the tests that draw; null: 10,000 random signs, and 1,000 resamples for mAP and mIoU, fewer
    for more than ten backbones."""
    seed: int = 0
    """Decides the draws."""
    index: bool = False
    """Keep an index.json in each folder that is given, of what was measured of what, for other programs."""
    missing: bool = True
    """Print the command that would fill each empty cell."""

    def check(self) -> None:
        """Raises UserError where no record is given, or a number means nothing."""
        if not self.records:
            raise UserError("give records or folders of them: siamtransfer rank records/")
        if not 0 < self.alpha < 1:
            raise UserError(f"--alpha must be between 0 and 1, not {self.alpha:g}")
        if self.resamples is not None and self.resamples < 100:
            raise UserError("--resamples must be at least 100, for p-values are counted in them")
        at_least("--seed", self.seed, 0)
        if self.index and not any(Path(path).is_dir() for path in self.records):
            raise UserError("--index keeps an index in a folder, and no folder is given: leave it out")


def rank_records(options: RankOptions) -> dict[str, Any]:
    """Prints the ranks and returns the record."""
    options.check()
    from siamtransfer.leaderboard import board, collect, rank
    from siamtransfer.leaderboard.index import update_index
    from siamtransfer.leaderboard.text import missing_lines, table_lines

    found = collect(options.records)
    measurements = [each for each in found if not options.tasks or each.task in options.tasks]
    _refuse_nothing(options, found, measurements)
    if options.index:
        for folder in filter(Path.is_dir, map(Path, options.records)):
            update_index(folder)
            say(f"wrote {folder / 'index.json'}")
    own = board(measurements, options.metrics)
    if not own.columns:
        raise UserError("no record has a number of which one way is better, so there is nothing to rank")
    ranking = rank(own, options.alpha, options.seed, options.resamples)
    lines = table_lines(own, ranking)
    if options.missing:
        lines += missing_lines(own)
    for line in lines:
        say(line)
    for sentence in (*own.remarks, *ranking.remarks):
        say(f"note: {sentence}")
    say(_conclusion(ranking))
    return _record(options, measurements, own, ranking)


def _refuse_nothing(options: RankOptions, found: list[Measurement], kept: list[Measurement]) -> None:
    """Raises UserError where no record is left, or a task has none."""
    if not found:
        raise UserError(f"{', '.join(options.records)} holds no record of a backbone")
    there = sorted({each.task for each in found})
    if absent := [task for task in options.tasks if task not in there]:
        raise UserError(f"there is no record of {', '.join(absent)}: there are {', '.join(there)}")
    assert kept


def _conclusion(ranking: Ranking) -> str:
    """What is told apart over all columns, in a sentence."""
    told = [pair for pair in ranking.overall_pairs if pair.better is not None]
    pairs = len(ranking.overall_pairs)
    if not pairs:
        return "there is one backbone: nothing to compare it with"
    if not ranking.pairs:
        return "no two backbones have predictions of the same images under one protocol: nothing is tested"
    return (
        f"over all columns {len(told)} of {pairs} pairs are told apart, by {len(ranking.pairs)} tests that "
        f"together err with a chance of at most {ranking.alpha:g}"
    )


def _record(
    options: RankOptions, measurements: list[Measurement], board: Board, ranking: Ranking
) -> dict[str, Any]:
    from siamtransfer.records.record import record
    from siamtransfer.utils.files import digest_of_file

    metrics = {f"rank/mean/{place.backbone.label}": place.mean_rank for place in ranking.overall}
    metrics |= {
        "rank/tests": len(ranking.pairs),
        "rank/told_apart": sum(pair.better is not None for pair in ranking.overall_pairs),
        "rank/missing": len(board.missing()),
    }
    groups = {
        column.title: {place.backbone.label: place.groups for place in places}
        for column, places in ranking.columns.items()
    }
    protocol = {
        "alpha": options.alpha,
        "correction": "Holm, over all pairs in all columns and over all columns",
        "tests": sorted({pair.test for pair in ranking.pairs}),
        "columns": [column.title for column in board.columns],
        "overall_groups": {place.backbone.label: place.groups for place in ranking.overall},
        "groups": groups,
        "resamples": options.resamples,
        "seed": options.seed,
        "remarks": [*board.remarks, *ranking.remarks],
    }
    files = {str(each.path): digest_of_file(each.path) for each in measurements}
    backbones = {backbone.label: backbone.digest for backbone in board.backbones}
    return record("rank", metrics, protocol, records=files, backbones=backbones)


main = Command("rank", RankOptions, rank_records, __doc__)

if __name__ == "__main__":
    run(main)
