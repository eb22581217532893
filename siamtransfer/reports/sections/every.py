"""All numbers of all records, a table for each task and protocol, folded."""

from __future__ import annotations

from typing import Any

from siamtransfer.leaderboard import BackboneId, Column
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.wording import counted, interval_text, number_text

MOST_ROWS = 400  # of a table; the file numbers.csv has all


def every_section(sources: Sources) -> Section | None:
    """Every number; None where there is none."""
    groups: dict[tuple[str, str], list[Column]] = {}
    for column in sources.every.columns:
        groups.setdefault((column.task, column.protocol_key), []).append(column)
    tables = [_table(sources, task, columns) for (task, _), columns in groups.items()]
    if not tables:
        return None
    count = counted(len(sources.every.cells), "number")
    return Section(
        "every",
        "Every number",
        "sections/every.html",
        {"tables": tables, "most": MOST_ROWS},
        note=f"{count} of all records, with what each means.",
        folded=True,
    )


def _table(sources: Sources, task: str, columns: list[Column]) -> dict[str, Any]:
    measured = {one for column in columns for one in sources.every.of(column)}
    backbones = [one for one in sources.every.backbones if one in measured]
    images = columns[0].title.partition(" · ")[2]
    return {
        "title": f"{task} · {images}" if images else task,
        "count": len(columns),
        "backbones": [one.label for one in backbones],
        "rows": [_row(sources, column, backbones) for column in columns[:MOST_ROWS]],
    }


def _row(sources: Sources, column: Column, backbones: list[BackboneId]) -> dict[str, Any]:
    cells = [sources.every.cells.get((one, column)) for one in backbones]
    return {
        "metric": column.metric,
        "cells": [
            None
            if cell is None
            else {
                "text": number_text(cell.value, column.unit),
                "interval": interval_text(cell.low, cell.high, column.unit),
                "m": sources.place_of(cell.measurement),
            }
            for cell in cells
        ],
    }
