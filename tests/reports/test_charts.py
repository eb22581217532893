"""Figures are valid for Plotly, strict JSON, and show texts as they are."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
from typing import Any

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from siamtransfer.reports.charts import (
    Chart,
    Figure,
    Series,
    Table,
    View,
    interval_chart,
    line_chart,
    matrix_chart,
    number,
    plain_text,
    plotly_script,
    style,
)

HOSTILE = '</script><img src=x onerror="alert(1)">&amp;\u2028 <a href="javascript:alert(2)">日本</a>\x00'


def figures() -> dict[str, Figure]:
    """One of each kind, with gaps and hostile names."""
    nan = math.nan
    line = Series(
        HOSTILE, [0, 1, 2], [1.0, nan, 3.0], [0.5, nan, 2.0], [2, nan, 4], markers=True, notes=[HOSTILE] * 3
    )
    return {
        "lines": line_chart([line, Series("pixels", [0, 2], [1, 1], reference=True)], "step", "loss"),
        "intervals": interval_chart([HOSTILE, "b"], [1.5, -2], [1, nan], [2, math.inf], "points", zero=True),
        "matrix": matrix_chart([[90.0, 10], [0, 100]], [HOSTILE, "b"], [[9, 1], [0, 5]], "x", "y", "%"),
    }


@pytest.mark.parametrize("kind", ["lines", "intervals", "matrix"])
def test_plotly_accepts_figures(kind: str) -> None:
    """Plotly's own classes raise for a key or a value that it does not know."""
    figure = figures()[kind]
    assert go.Figure(figure).to_plotly_json()["data"][0]["type"] == figure["data"][0]["type"]


@pytest.mark.parametrize("kind", ["lines", "intervals", "matrix"])
def test_embedded_figures_are_strict_json_that_cannot_end_their_element(kind: str) -> None:
    table = Table(["name", "value"], [[HOSTILE, math.nan], ["b", None]])
    chart = Chart("chart-x", HOSTILE, [View(HOSTILE, figures()[kind], HOSTILE, table)])
    text = str(chart.as_json())

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    [view] = json.loads(text, parse_constant=refuse)["views"]
    assert "<" not in text and "\u2028" not in text
    assert view["summary"] == HOSTILE and view["rows"] == [[HOSTILE, None], ["b", None]]


def test_texts_have_no_tags_for_plotly() -> None:
    shown = plain_text(HOSTILE, 200)
    assert "<" not in shown and ">" not in shown and "\u2028" not in shown and "\x00" not in shown
    assert html.unescape(shown) == " ".join(HOSTILE.replace("\x00", " ").replace("\u2028", " ").split())
    assert plain_text("a" * 50 + "b" * 50, 10) == "aaaaaa…bbb"


def test_error_bars_reach_from_the_value_to_the_ends() -> None:
    figure = interval_chart(["a"], [50.0], [47.5], [53.25], "%")
    bars = figure["data"][0]["error_x"]
    assert (bars["array"], bars["arrayminus"]) == ([3.25], [2.5])


def test_numbers_are_finite_and_short() -> None:
    assert [number(value) for value in (1 / 3, 2.0, math.nan, -math.inf, 123456789.0)] == [
        0.333333,
        2,
        None,
        None,
        123457000,
    ]


def test_many_lines_differ_in_more_than_colour() -> None:
    looks = [style(place) for place in range(315)]
    assert len(set(looks)) == 315
    assert len({look[1:] for look in looks[:9]}) == 9


def test_the_library_is_in_the_page_whole() -> None:
    text = plotly_script()
    packed = text.split('"')[1]
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert len(text) < 0.5 * len(get_plotlyjs())
    assert text == plotly_script()
