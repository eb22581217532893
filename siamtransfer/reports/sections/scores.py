"""The section of scores with their intervals: a row a backbone, for the column that the reader chooses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from siamtransfer.leaderboard import Cell, Column
from siamtransfer.reports.charts import Chart, Table, View, interval_chart, number
from siamtransfer.reports.naming import task_names
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.standings import is_baseline
from siamtransfer.reports.wording import interval_text, number_text

HEAD = ["backbone", "value", "low", "high", "samples"]
EXPLAINED = (
    "Bars are 95 % intervals of each score alone; open circles are baselines. Bars that overlap can still "
    "differ for certain, since all backbones saw the same samples: the letters in the table above tell."
)


def scores_section(sources: Sources) -> Section | None:
    """Every main number with its interval; None where there is none."""
    names = task_names(sources.board.columns)
    views = [
        scores_view(column, list(sources.board.of(column).values()), name.short)
        for column, name in names.items()
    ]
    if not views:
        return None
    return Section(
        "scores",
        "Intervals",
        "sections/charts.html",
        {
            "charts": [Chart("chart-scores", "Scores and 95 % intervals", views, choice="Task")],
            "notes": [EXPLAINED],
            "pairs": False,
        },
        scripts=("charts.js",),
        styles=("charts.css",),
        plotly=True,
    )


def scores_view(column: Column, cells: Sequence[Cell], name: str) -> View:
    """The backbones of a column, the best on top; `name` is what the reader knows it by."""
    ordered = sorted(cells, key=lambda cell: cell.value, reverse=column.higher_is_better)
    names = [cell.measurement.backbone.label for cell in ordered]
    ends = [
        (math.nan if cell.low is None else cell.low, math.nan if cell.high is None else cell.high)
        for cell in ordered
    ]
    samples = [_samples(cell) for cell in ordered]
    texts = [_text(cell, column.unit, count) for cell, count in zip(ordered, samples, strict=True)]
    figure = interval_chart(
        names,
        [cell.value for cell in ordered],
        [low for low, _ in ends],
        [high for _, high in ends],
        f"{name} ({column.unit})" if column.unit else name,
        notes=[f"{label}: {text}" for label, text in zip(names, texts, strict=True)],
    )
    figure["data"][0]["marker"]["symbol"] = [
        "circle-open" if is_baseline(cell.measurement) else "circle" for cell in ordered
    ]
    figure["layout"]["height"] = 90 + 24 * max(len(ordered), 3)
    way = "higher is better" if column.higher_is_better else "lower is better"
    summary = f"{name}, {way}. Best: {names[0]} with {texts[0]}."
    if len(ordered) > 1:
        summary += f" Last: {names[-1]} with {texts[-1]}."
    rows = [
        [label, number(cell.value), *(number(end) for end in of_one), count]
        for label, cell, of_one, count in zip(names, ordered, ends, samples, strict=True)
    ]
    return View(name, figure, summary, Table(HEAD, rows))


def _text(cell: Cell, unit: str, samples: int | None) -> str:
    interval = interval_text(cell.low, cell.high, unit)
    known = [f"95 % interval {interval}" if interval else "no interval was measured"]
    known += [f"n = {samples}"] if samples else []
    return f"{number_text(cell.value, unit)}{' ' * bool(unit)}{unit} ({', '.join(known)})"


def _samples(cell: Cell) -> int | None:
    """How many samples were scored; None where no predictions are kept."""
    kept = cell.measurement.sound()
    return None if kept is None else len(kept)
