"""The section of cost: time, speed, memory and energy of every measurement, as its record has them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siamtransfer.leaderboard import Cell, Column
from siamtransfer.metering.cost import Cost
from siamtransfer.records.cost import cost_line
from siamtransfer.reports.charts import (
    COLOURS,
    SYMBOLS,
    Chart,
    Table,
    Value,
    View,
    errors,
    layout,
    number,
    numbers,
    plain_text,
)
from siamtransfer.reports.naming import task_names
from siamtransfer.reports.point_labels import extent_of, point_labels
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.wording import interval_text, listed, number_text
from siamtransfer.utils.json_file import read_checked_json

EXPLAINED = (
    "What each measurement took on the machine that made it, as its record says; a dash is what that machine "
    "does not tell. Times of different machines are no comparison of backbones. Where features came from the "
    "cache, the network did not run, and the time is without it."
)
GIBIBYTE = 2**30
UNTOLD = "–"
MOST_NAMES = 12
"""Points with names beside them."""
COLUMNS = (
    ("seconds", "seconds", 1.0),
    ("images", "images", 1.0),
    ("images/s", "images_per_second", 1.0),
    ("memory (GiB)", "peak_memory_bytes", GIBIBYTE),
    ("device memory (GiB)", "peak_device_memory_bytes", GIBIBYTE),
    ("energy (kJ)", "energy_joules", 1000.0),
)
"""Columns of the table: title, key in a record's cost, and what its value is divided by."""


def cost_section(sources: Sources) -> Section | None:
    """The cost of all records; None where none has it."""
    costs = [
        (measurement.backbone.label, measurement.task, cost_of(measurement.record))
        for measurement in sources.measurements
    ]
    without = sum(not cost for *_, cost in costs)
    costs += [(run.name, "pretrain", cost_of_run(run.path)) for run in sources.runs]
    rows = [
        {
            "backbone": name,
            "task": task,
            "numbers": [_shown(cost, key, unit) for _, key, unit in COLUMNS],
            "machine": str(cost.get("device", "–")),
            "source": str(cost.get("energy_source", "")),
        }
        for name, task, cost in costs
        if cost
    ]
    if not rows:
        return None
    titles, untold = _split_titles(rows)
    names = task_names(sources.board.columns)
    views = [
        view
        for column, name in names.items()
        if (view := cost_view(column, _cells(sources, column), name.short))
    ]
    return Section(
        "cost",
        "Cost",
        "sections/cost.html",
        {
            "explained": EXPLAINED,
            "rows": rows,
            "titles": titles,
            "untold": listed(untold) if untold else "",
            "without": without,
            "charts": [Chart("chart-cost", "Score against time", views, choice="Task")] if views else [],
        },
        scripts=("charts.js",),
        styles=("charts.css",),
        plotly=bool(views),
    )


def _split_titles(rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The columns in which any row has a number, and the others, whose cells are taken out of the rows."""
    told = [any(row["numbers"][place] != UNTOLD for row in rows) for place in range(len(COLUMNS))]
    for row in rows:
        row["numbers"] = list(itertools.compress(row["numbers"], told))
    titles = [title for title, _, _ in COLUMNS]
    return list(itertools.compress(titles, told)), list(itertools.compress(titles, (not one for one in told)))


def cost_of(record: dict[str, Any]) -> dict[str, Any]:
    """The cost in a record; empty where it has none."""
    cost = record["provenance"].get("cost")
    return cost if isinstance(cost, dict) else {}


def cost_of_run(folder: Path) -> dict[str, Any]:
    """The cost of a run of pretraining, over all its processes, from the cost.json of its folder; empty where
    there is none or it is damaged."""
    try:
        return Cost.from_json(read_checked_json(folder / "cost.json")).as_dict()
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def cost_view(column: Column, cells: Sequence[Cell], name: str) -> View | None:
    """Score over seconds of the measurements in which the network ran; None where fewer than two have a
    time. Each device has a marker of its own. `name` is what the reader knows the column by."""
    timed = [cell for cell in cells if _network_ran(cost_of(cell.measurement.record))]
    if len(timed) < 2:
        return None
    costs = [cost_of(cell.measurement.record) for cell in timed]
    devices = list(dict.fromkeys(str(cost.get("device", "device not stated")) for cost in costs))
    data, rows = [], []
    for place, device in enumerate(devices):
        chosen = [
            (cell, cost)
            for cell, cost in zip(timed, costs, strict=True)
            if str(cost.get("device", "device not stated")) == device
        ]
        data.append(_points(place, device, column, chosen))
        rows += [
            [cell.measurement.backbone.label, device, number(cost["seconds"], 4), number(cell.value, 4)]
            for cell, cost in chosen
        ]
    summary = f"{len(timed)} backbones on {' and '.join(devices)}. "
    if len(devices) == 1:
        cost, fastest = min(zip(costs, timed, strict=True), key=lambda pair: float(pair[0]["seconds"]))
        unit = f" {column.unit}" if column.unit else ""
        summary += (
            f"Fastest: {fastest.measurement.backbone.label}, {cost['seconds']:.3g} s for "
            f"{number_text(fastest.value, column.unit)}{unit}."
        )
    else:
        summary += "Times of one device alone can be compared."
    left_out = len(cells) - len(timed)
    if left_out:
        summary += f" {left_out} of {len(cells)} are left out: no time, or features from the cache."
    axes = layout(
        "seconds",
        f"{name}{f' ({column.unit})' * bool(column.unit)}",
        showlegend=len(devices) > 1,
        **_names_of_points(timed, [float(cost["seconds"]) for cost in costs]),
    )
    table: list[list[Value]] = rows
    return View(
        name,
        {"data": data, "layout": axes},
        summary,
        Table(["backbone", "device", "seconds", "score"], table),
    )


def _points(
    place: int, device: str, column: Column, chosen: Sequence[tuple[Cell, dict[str, Any]]]
) -> dict[str, Any]:
    """The measurements of one device as points with the names of their backbones."""
    colour = COLOURS[place % len(COLOURS)]
    labels = [cell.measurement.backbone.label for cell, _ in chosen]
    values = [cell.value for cell, _ in chosen]
    low, high = (
        [float("nan") if end is None else end for end in ends]
        for ends in zip(*((c.low, c.high) for c, _ in chosen), strict=True)
    )
    seconds = [cost["seconds"] for _, cost in chosen]
    notes = []
    for label, (cell, cost) in zip(labels, chosen, strict=True):
        interval = interval_text(cell.low, cell.high, column.unit) or "not measured"
        value = f"{number_text(cell.value, column.unit)} {column.unit} (95 % interval {interval})"
        notes.append(f"{label}: {value} · {cost_line(cost)}")
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain_text(device),
        "x": numbers(seconds),
        "y": numbers(values),
        "error_y": errors(values, low, high, colour),
        "marker": {"color": colour, "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 10},
        "text": [plain_text(note, 300) for note in notes],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _names_of_points(cells: Sequence[Cell], seconds: Sequence[float]) -> dict[str, Any]:
    """What a layout needs for the names beside the points; nothing where there are too many to read."""
    if len(cells) > MOST_NAMES:
        return {}
    values = [cell.value for cell in cells]
    bars = [
        (math.nan if cell.low is None else cell.low, math.nan if cell.high is None else cell.high)
        for cell in cells
    ]
    across, up = extent_of(seconds), extent_of([*values, *(end for ends in bars for end in ends)])
    names = [cell.measurement.backbone.label for cell in cells]
    return {
        "annotations": point_labels(names, seconds, values, bars, across, up),
        "xaxis": {"range": list(across)},
        "yaxis": {"range": list(up)},
    }


def _cells(sources: Sources, column: Column) -> list[Cell]:
    return list(sources.board.of(column).values())


def _network_ran(cost: dict[str, Any]) -> bool:
    return bool(cost.get("seconds")) and not cost.get("features_from_cache")


def _shown(cost: dict[str, Any], key: str, unit: float) -> str:
    """A number of the table; a dash where the machine does not tell."""
    value = cost.get(key)
    if not isinstance(value, int | float):
        return UNTOLD
    if isinstance(value, int) and unit == 1:
        return f"{value:,}"
    return f"{value / unit:,.0f}" if value / unit >= 100 else f"{value / unit:.3g}"
