"""Charts of the report: Plotly figures as plain JSON, each with a sentence and a table that say the same.

A figure names its colours as CSS variables (`var(--series-1)`), which templates/charts.js replaces by those
of the page's theme when it draws the figure, and again when the theme changes. The seven colours of lines are
those of Okabe & Ito (2008), which colour-blind readers can tell apart; dashes and markers differ too.

Plotly reads texts as a little HTML, and a name of a class or a file is no HTML: every text goes through
`plain_text`. JSON has no NaN: every number goes through `number`.
"""

from __future__ import annotations

import base64
import gzip
import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from siamtransfer.reports.embedded_json import embedded_json

COLOURS = tuple(f"var(--series-{number})" for number in range(1, 8))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GREY = "var(--quiet)"
TEXT = "var(--ink)"
GRID = "var(--line)"

MOST_LINES = 12
"""Lines of a figure that a reader can still follow."""
Figure = dict[str, Any]
"""`data` and `layout` as Plotly reads them."""
Value = str | float | int | None


@dataclass(frozen=True)
class Table:
    """What a figure shows, in words and numbers; None is a value that was not measured."""

    head: Sequence[str]
    rows: Sequence[Sequence[Value]]


@dataclass(frozen=True)
class View:
    """A figure of a chart.

    Attributes:
        name: what a reader chooses it by, such as the name of a backbone.
        figure: for Plotly.
        summary: one or two sentences that say what the figure shows, with the number of samples.
        table: the same in numbers.
    """

    name: str
    figure: Figure
    summary: str
    table: Table


@dataclass(frozen=True)
class Chart:
    """A place of the page where one of several figures stands.

    Attributes:
        id: unique on the page; letters, digits and hyphens.
        title: above the figure.
        views: one or more; the reader chooses by `choice` where there are several.
        choice: the label of that choice, such as "Backbone".
        height: of the figure in CSS pixels.
        width: its largest width in them; None: that of the page.
    """

    id: str
    title: str
    views: Sequence[View]
    choice: str = "Show"
    height: int = 360
    width: int | None = None

    def as_json(self) -> Markup:
        """The views as strict JSON that can stand inside a script element of a page."""
        views = [
            {
                "name": view.name,
                "data": view.figure["data"],
                "layout": view.figure["layout"],
                "summary": view.summary,
                "head": list(view.table.head),
                "rows": [
                    [number(cell) if isinstance(cell, float) else cell for cell in row]
                    for row in view.table.rows
                ],
            }
            for view in self.views
        ]
        return embedded_json({"views": views})


@dataclass(frozen=True)
class Series:
    """A line of a figure.

    Attributes:
        name: in the legend.
        x, y: of equal length; NaN is a gap.
        low, high: the ends of the intervals of y, if there are any.
        markers: whether every point is marked.
        reference: whether it is a baseline, which is drawn in grey.
        notes: a text a point, shown beside it on hover.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    markers: bool = False
    reference: bool = False
    notes: Sequence[str] = field(default=())


def plotly_script() -> str:
    """The text of a script that holds Plotly's library, which charts.js unpacks for the first figure.

    Compressed (gzip, then base64) it takes 2.0 MB instead of 4.8, and a page that is not scrolled to a figure
    does not parse it.
    """
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)
    return f'window.packedPlotly = "{base64.b64encode(packed).decode()}";'


def plain_text(text: str, longest: int = 60) -> str:
    """A text that Plotly shows as it is: no tags, one line, at most `longest` characters. A long one loses
    some in the middle, for names of one family differ at their ends."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    if len(line) > longest:
        tail = longest // 3
        line = f"{line[: longest - 1 - tail]}…{line[-tail:]}"
    return html.escape(line, quote=False)


def number(value: float, digits: int = 6) -> float | int | None:
    """`value` with so many significant digits, as an integer where it is one; None for NaN and infinities."""
    value = float(value)
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def numbers(values: Iterable[float], digits: int = 6) -> list[float | int | None]:
    """`number` of each."""
    return [number(value, digits) for value in values]


def layout(x_title: str = "", y_title: str = "", **further: Any) -> dict[str, Any]:
    """What all figures share: no background of their own, the page's colours, a legend below."""

    def axis(title: str) -> dict[str, Any]:
        return {
            "title": {"text": plain_text(title), "font": {"size": 13}, "standoff": 10},
            "gridcolor": GRID,
            "linecolor": GRID,
            "zeroline": False,
            "automargin": True,
            "exponentformat": "power",
        }

    shared: dict[str, Any] = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": TEXT, "size": 13, "family": "system-ui, sans-serif"},
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "hoverlabel": {"align": "left", "bgcolor": "var(--raised)", "font": {"color": TEXT}},
        "hovermode": "closest",
        "dragmode": False,
        "legend": {"orientation": "h", "y": -0.2, "x": 0, "yanchor": "top"},
        "xaxis": axis(x_title),
        "yaxis": axis(y_title),
    }
    for key, value in further.items():
        shared[key] = {**shared[key], **value} if isinstance(shared.get(key), dict) else value
    return shared


def style(place: int) -> tuple[str, str, str]:
    """Colour, marker and dash of the series at `place`; no two of the first 315 share all three."""
    return COLOURS[place % len(COLOURS)], SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)]


def line_chart(series: Sequence[Series], x_title: str, y_title: str, **further: Any) -> Figure:
    """Lines over numbers; baselines grey."""
    data = []
    measured = 0
    for place, line in enumerate(series):
        colour, symbol, dash = style(measured)
        if line.reference:
            colour, dash = GREY, DASHES[1 + place % (len(DASHES) - 1)]
        else:
            measured += 1
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines+markers" if line.markers else "lines",
            "name": plain_text(line.name),
            "x": numbers(line.x),
            "y": numbers(line.y),
            "line": {"color": colour, "dash": dash, "width": 1.5 if line.reference else 2},
        }
        if line.markers:
            trace["marker"] = {"color": colour, "symbol": symbol, "size": 7}
        if line.low is not None and line.high is not None:
            trace["error_y"] = errors(line.y, line.low, line.high, colour)
        if line.notes:
            trace["text"] = [plain_text(note, 200) for note in line.notes]
        data.append(trace)
    return {"data": data, "layout": layout(x_title, y_title, showlegend=len(series) > 1, **further)}


def interval_chart(
    names: Sequence[str],
    values: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    x_title: str,
    *,
    notes: Sequence[str] = (),
    zero: bool = False,
) -> Figure:
    """A value with its interval in each row, the first on top (a forest plot).

    Args:
        names: one a row.
        values, low, high: the values and the ends of their intervals; NaN ends are no interval.
        x_title: what is measured.
        notes: a text a row, shown on hover.
        zero: whether a line stands at 0, for differences.
    """
    rows = list(range(len(names)))
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers(values),
        "y": rows,
        "marker": {"color": COLOURS[0], "size": 9, "symbol": "circle"},
        "error_x": errors(values, low, high, COLOURS[0]),
        "text": [plain_text(note, 300) for note in (notes or names)],
        "hovertemplate": "%{text}<extra></extra>",
    }
    ticks = {
        "tickvals": rows,
        "ticktext": [plain_text(name, 26) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
    }
    shapes = [vertical_line(0.0)] if zero else []
    return {"data": [trace], "layout": layout(x_title, "", yaxis=ticks, shapes=shapes, showlegend=False)}


def errors(
    values: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str
) -> dict[str, Any]:
    """Plotly's error bars from the ends of intervals."""
    return {
        "type": "data",
        "symmetric": False,
        "array": numbers(end - value for value, end in zip(values, high, strict=True)),
        "arrayminus": numbers(value - end for value, end in zip(values, low, strict=True)),
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }


def vertical_line(x: float) -> dict[str, Any]:
    """A thin line over the whole height of a figure."""
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "line": {"color": GREY, "width": 1, "dash": "dot"},
    }


def matrix_chart(
    cells: Sequence[Sequence[float]],
    names: Sequence[str],
    counts: Sequence[Sequence[int]],
    x_title: str,
    y_title: str,
    bar_title: str,
) -> Figure:
    """A square of cells[row][column] from 0 to 100, the first row on top, darker where larger; `counts`, of
    the same shape, are the numbers of samples behind them."""
    places = list(range(len(names)))
    ticks = {"tickvals": places, "ticktext": [plain_text(name, 18) for name in names], "showgrid": False}
    trace = {
        "type": "heatmap",
        "z": [numbers(row, 4) for row in cells],
        "x": places,
        "y": places,
        "zmin": 0,
        "zmax": 100,
        "colorscale": [[0, "var(--chart-low)"], [0.5, "var(--chart-middle)"], [1, "var(--chart-high)"]],
        "customdata": [list(row) for row in counts],
        "hovertemplate": "%{y} → %{x}<br>%{z} % (%{customdata} samples)<extra></extra>",
        "xgap": 1,
        "ygap": 1,
        "colorbar": {
            "title": {"text": plain_text(bar_title), "side": "right", "font": {"size": 13}},
            "thickness": 12,
            "outlinewidth": 0,
        },
    }
    square = layout(
        x_title,
        y_title,
        xaxis={**ticks, "tickangle": -45, "constrain": "domain"},
        yaxis={
            **ticks,
            "range": [len(names) - 0.5, -0.5],
            "scaleanchor": "x",
            "constrain": "domain",
            "constraintoward": "top",
        },
    )
    return {"data": [trace], "layout": square}
