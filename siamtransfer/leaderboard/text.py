"""A board and its ranks as lines of text, for the terminal."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from siamtransfer.leaderboard.boards import Board
from siamtransfer.leaderboard.columns import Column
from siamtransfer.leaderboard.measurement import BackboneId
from siamtransfer.leaderboard.ranking import Place, Ranking

_A_LINE = 5  # columns that stand side by side
_WIDTH = 16


def table_lines(board: Board, ranking: Ranking) -> list[str]:
    """The ranks over all columns, then the values of every column; letters are groups that cannot be told
    apart. Empty for an empty board."""
    if not board.backbones or not board.columns:
        return []
    width = max(len("backbone"), *(len(backbone.label) for backbone in board.backbones)) + 2
    order = [place.backbone for place in ranking.overall]
    lines = [f"{'backbone':{width}}{'mean rank':>10}  groups  columns"]
    lines += [
        f"{place.backbone.label:{width}}{_rank(place.mean_rank)}  {place.groups or '-':6}  {place.columns:7}"
        for place in ranking.overall
    ]
    for begin in range(0, len(board.columns), _A_LINE):
        lines += _block(board.columns[begin : begin + _A_LINE], begin, order, ranking, width)
    return lines + _against_the_ranks(ranking)


def _against_the_ranks(ranking: Ranking) -> list[str]:
    """A line for each backbone that is told to be better than one of a better mean rank, for the letters of a
    table do not say which of two is."""
    lines = []
    for pair in ranking.overall_pairs:
        if pair.better == pair.second:
            worse = pair.first_better or "none"
            by_columns = f"clearly better in {pair.second_better} of {pair.columns} columns, worse in {worse}"
            why = by_columns if pair.second_better else "the test over all columns says so"
            lines.append(
                f"{pair.second.label} is told to be better than {pair.first.label}, in spite of the mean "
                f"ranks: {why}"
            )
    return lines


def _rank(mean: float) -> str:
    return f"{'-' if math.isnan(mean) else f'{mean:.2f}':>10}"


def _block(
    columns: Sequence[Column], begin: int, order: Sequence[BackboneId], ranking: Ranking, width: int
) -> list[str]:
    """Some columns side by side, below them what they are."""
    numbers = range(begin + 1, begin + 1 + len(columns))
    found = [{place.backbone: place for place in ranking.columns[column]} for column in columns]
    lines = ["", " " * width + "".join(f"{f'[{number}]':>{_WIDTH}}" for number in numbers)]
    lines += [
        f"{backbone.label:{width}}{''.join(_cell(places.get(backbone)) for places in found)}".rstrip()
        for backbone in order
    ]
    for number, column in zip(numbers, columns, strict=True):
        unit = f" ({column.unit})" if column.unit else ""
        better = "" if column.higher_is_better else ", lower is better"
        lines.append(f"[{number}] {column.title}{unit}{better}")
    return lines


def _cell(place: Place | None) -> str:
    text = "-    " if place is None else f"{place.value:.2f} {place.groups or '-':4}"
    return f"{text:>{_WIDTH}}"


def missing_lines(board: Board) -> list[str]:
    """A line for the empty cells that one command fills, and the command."""
    together: dict[tuple[BackboneId, str], list[str]] = defaultdict(list)
    for missing in board.missing():
        together[missing.backbone, missing.command].append(missing.column.title)
    unknown = "no record of the column says by which command it was made"
    return [
        f"missing: {backbone.label}, {'; '.join(titles)}: {command or unknown}"
        for (backbone, command), titles in together.items()
    ]
