"""All numbers of all records, a table for each task and protocol, folded.

Numbers of which no way is better stand here, too, such as the health of features. Nothing is ranked.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from siamtransfer.cli.output import table_rows
from siamtransfer.leaderboard import Measurement
from siamtransfer.leaderboard.columns import TASKS, set_of
from siamtransfer.records.likeness import protocol_key
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.wording import counted, listed

MOST_ROWS = 400  # of a table; the file numbers.csv has all


def every_section(sources: Sources) -> Section | None:
    """Every number; None where there is no record."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in sources.measurements:
        groups.setdefault((measurement.task, protocol_key(measurement.record)), []).append(measurement)
    if not groups:
        return None
    tables = [_table(sources, measured) for measured in groups.values()]
    tables.sort(key=lambda table: TASKS.index(table["task"]) if table["task"] in TASKS else len(TASKS))
    _tell_apart(tables)
    count = counted(sum(table["numbers"] for table in tables), "number")
    return Section(
        "every",
        "Every number",
        "sections/every.html",
        {"tables": tables, "most": MOST_ROWS},
        note=f"{count}, each with its protocol and meaning.",
        folded=True,
    )


def _tell_apart(tables: list[dict[str, Any]]) -> None:
    """Names the backbones in titles that several tables have, those of unlike protocols."""
    count = Counter(table["title"] for table in tables)
    for table in tables:
        if count[table["title"]] > 1:
            table["title"] += f" · {listed(table['backbones'])}"


def _other_set(measurement: Measurement) -> str:
    """The set of other images that the record is about, where it is not about the test split."""
    name = str(measurement.record["protocol"].get("measured_set", ""))
    return "" if name == "clean" else name


def _table(sources: Sources, measured: list[Measurement]) -> dict[str, Any]:
    """The numbers of records of one task and protocol, a backbone a column."""
    rows_of = [
        {name: (value, interval) for name, value, interval, _ in table_rows(measurement.metrics)}
        for measurement in measured
    ]
    names = list(dict.fromkeys(name for rows in rows_of for name in rows))
    images = set_of(measured[0].record)
    places = [sources.place_of(measurement) for measurement in measured]
    return {
        "task": measured[0].task,
        "title": " · ".join(filter(None, (measured[0].task, images, _other_set(measured[0])))),
        "count": len(names),
        "numbers": sum(map(len, rows_of)),
        "backbones": [measurement.backbone.label for measurement in measured],
        "rows": [
            {
                "metric": name,
                "cells": [
                    {"text": rows[name][0], "interval": rows[name][1], "m": place} if name in rows else None
                    for rows, place in zip(rows_of, places, strict=True)
                ],
            }
            for name in names[:MOST_ROWS]
        ],
    }
