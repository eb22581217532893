"""The table of backbones x tasks: values, intervals, groups, and a guess below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siamtransfer.leaderboard import BackboneId, Column, Missing, OverallPlace
from siamtransfer.reports.naming import only_set
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.standings import Standings
from siamtransfer.reports.wording import interval_text, listed, number_text, sentence


def numbers_section(sources: Sources) -> Section | None:
    """The main number of every backbone and task; None where nothing was measured."""
    if not sources.board.columns:
        return None
    standings = Standings(sources)
    ranks = {entry.backbone: entry for entry in sources.ranking.overall}
    backbones = [*standings.contenders, *standings.baselines]
    counts = {
        "Not measured": len(sources.board.missing()),
        "failed": len(sources.failed),
        "left out": len(sources.left_out),
    }
    gaps = ", ".join(f"{what}: {count}" for what, count in counts.items() if count)
    context = {
        "columns": [_heading(standings, column) for column in sources.board.columns],
        "rows": [_row(sources, standings, one, ranks) for one in backbones],
        "ranked": len(backbones) > 1 and len(standings.board.columns) > 1,
        "letters": _most_letters(sources),
        "guesses": _guesses(standings),
        "missing": _missing(standings, sources.board.missing()),
        "without_record": [("failed", cell) for cell in sources.failed]
        + [("left out", cell) for cell in sources.left_out],
        "gaps": gaps[:1].upper() + gaps[1:],
        "remarks": [sentence(one) for one in (*sources.remarks, *sources.ranking.remarks)],
    }
    images = only_set(sources.board.columns)
    note = "A bar and bold figures mark the best of a task and all that cannot be told apart from it."
    note = f"{note} All scores are on {images}." if images else note
    return Section("numbers", "All backbones", "sections/numbers.html", context, note=note)


def _most_letters(sources: Sources) -> int:
    """The letters of the backbone with most of them, for which every cell leaves room."""
    letters = [place.groups for ordered in sources.ranking.columns.values() for place in ordered]
    letters += [place.groups for place in sources.ranking.overall]
    return max(map(len, letters), default=1)


def _heading(standings: Standings, column: Column) -> dict[str, str]:
    return {
        "name": standings.names[column].short,
        "detail": standings.names[column].detail,
        "unit": column.unit,
        "first": "descending" if column.higher_is_better else "ascending",
        "better": "" if column.higher_is_better else "lower is better",
    }


def _row(
    sources: Sources, standings: Standings, one: BackboneId, ranks: dict[BackboneId, OverallPlace]
) -> dict[str, Any]:
    rank = ranks.get(one)
    return {
        "label": one.label,
        "baseline": one in standings.baselines,
        "rank": None if rank is None else rank.mean_rank,
        "rank_text": "–" if rank is None else f"{rank.mean_rank:.1f}",
        "groups": "" if rank is None else rank.groups,
        "cells": [_cell(sources, standings, one, column) for column in sources.board.columns],
    }


def _cell(sources: Sources, standings: Standings, one: BackboneId, column: Column) -> dict[str, Any] | None:
    """A number of the table; None where it was not measured."""
    cell = standings.cell(one, column)
    if cell is None:
        return None
    mine = standings.places(column, [one])
    top = sources.ranking.columns.get(column) or []
    return {
        "value": cell.value,
        "text": number_text(cell.value, column.unit),
        "interval": interval_text(cell.low, cell.high, column.unit),
        "groups": mine[0].groups if mine and len(top) > 1 else "",
        "best": standings.is_top(one, column),
        "m": sources.place_of(cell.measurement),
        "metric": column.metric,
    }


def _guesses(standings: Standings) -> list[str]:
    """What a guess scores in each column; nothing where no column has one."""
    values = [standings.guesses[column] for column in standings.board.columns]
    return [number_text(value) if value is not None else "" for value in values] if any(values) else []


def _missing(standings: Standings, cells: Sequence[Missing]) -> list[dict[str, str]]:
    """The empty cells by the command that fills them: one command fills several of one backbone."""
    groups: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        own = groups.setdefault((cell.backbone.label, cell.command), [])
        own.append(standings.names[cell.column].short)
    return [
        {"backbone": label, "names": listed(names, len(names)), "command": command}
        for (label, command), names in groups.items()
    ]
