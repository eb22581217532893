"""The section of transformed images: how far features move, and how often neighbours still name the class."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from siamtransfer.leaderboard import Measurement
from siamtransfer.leaderboard.columns import comparable
from siamtransfer.records.likeness import protocol_key
from siamtransfer.records.metric_intervals import interval_of
from siamtransfer.reports.charts import MOST_LINES, Chart, Series, Table, View, line_chart, number
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.wording import interval_text, listed

POINT = re.compile(r"invariance/(?P<name>[^/]+)/strength=(?P<strength>[\d.e+-]+)/(?P<number>relative|top1)")
BASELINES = ("pixels", "untrained")
CLEAN = "invariance/clean/top1"
NOTE = (
    "The same images are transformed more and more, and no training image is. Strength 0 is the images as "
    "they are. The distance is 1 - cosine of the features of an image and its version, over that of two "
    "images of different classes: 0 is invariant, 1 as far as another class. Bars are 95 % intervals. Raw "
    "pixels and untrained networks are grey."
)


class Kind(NamedTuple):
    """A number that is drawn over the strength."""

    number: str
    title: str
    axis: str
    unit: str
    digits: int


KINDS = (
    Kind("relative", "How far features move", "distance / that between classes", "", 2),
    Kind("top1", "kNN of transformed images", "top-1 (%)", " %", 1),
)


class Point(NamedTuple):
    """A value over a strength, and the ends of its interval."""

    strength: float
    value: float
    low: float
    high: float


class Line(NamedTuple):
    """The points of a backbone or a baseline, in rising order of strength."""

    label: str
    points: tuple[Point, ...]
    is_baseline: bool


def invariance_section(sources: Sources) -> Section | None:
    """Two charts for every protocol, with a view a transformation; None where nothing was measured."""
    by_protocol: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in sources.measurements:
        if any(map(POINT.fullmatch, measurement.metrics)):
            by_protocol[protocol_key(comparable(measurement.record, CLEAN))].append(measurement)
    groups = [_best_first(alike) for alike in by_protocol.values()]
    charts = []
    for place, (measured, known_by) in enumerate(zip(groups, _known_by(groups), strict=True)):
        found = [POINT.fullmatch(name) for one in measured for name in one.metrics]
        names = list(dict.fromkeys(match["name"] for match in found if match))
        for kind in KINDS:
            views = [transformation_view(name, kind, measured) for name in names]
            identity = f"chart-invariance-{kind.number}-{place}"
            charts.append(Chart(identity, f"{kind.title}{known_by}", views, choice="Transformation"))
    if not charts:
        return None
    return Section(
        "invariance",
        "Transformed images",
        "sections/charts.html",
        {"charts": charts, "notes": [NOTE], "pairs": True},
        scripts=("charts.js",),
        styles=("charts.css",),
        plotly=True,
    )


def _best_first(alike: Sequence[Measurement]) -> list[Measurement]:
    """The newest measurement of each backbone, the best on average first."""
    newest = {one.backbone: one for one in sorted(alike, key=lambda one: one.time)}
    return sorted(newest.values(), key=_mean_accuracy, reverse=True)


def _known_by(groups: Sequence[Sequence[Measurement]]) -> list[str]:
    """The ends of titles that tell protocols apart: nothing for a single one, else the images, and the
    backbones where several are of the same images."""
    if len(groups) == 1:
        return [""]
    images = [str(_stated(measured[0]).get("test", "")) for measured in groups]
    ends = []
    for name, measured in zip(images, groups, strict=True):
        backbones = listed([one.backbone.label for one in measured]) if images.count(name) > 1 else ""
        ends.append("".join(f" · {word}" for word in (name, backbones) if word))
    return ends


def transformation_view(name: str, kind: Kind, measured: Sequence[Measurement]) -> View:
    """A number over the strength of one transformation, a line a backbone and a baseline."""
    lines = [line for one in measured if (line := _line(one.backbone.label, "", one, name, kind))]
    drawn = lines[:MOST_LINES] + list(_baselines(measured, name, kind))
    series = [
        Series(
            line.label,
            [point.strength for point in line.points],
            [point.value for point in line.points],
            [point.low for point in line.points],
            [point.high for point in line.points],
            markers=True,
            reference=line.is_baseline,
        )
        for line in drawn
    ]
    rows = [
        [line.label, *map(number, point)]
        for line in (*lines, *drawn[len(lines[:MOST_LINES]) :])
        for point in line.points
    ]
    unit = _unit(measured, name)
    figure = line_chart(series, f"strength: {unit}" if unit else "strength", kind.axis)
    sentences = [_sentence(line, kind) for line in lines]
    more = f"; and {len(sentences) - 5} more" if len(sentences) > 5 else ""
    left = f" The {MOST_LINES} best on average are drawn of {len(lines)}." if len(lines) > MOST_LINES else ""
    head = ["backbone", "strength", kind.axis, "low", "high"]
    summary = f"{'; '.join(sentences[:5])}{more}.{left}"
    return View(name.replace("_", " "), figure, summary, Table(head, rows))


def _sentence(line: Line, kind: Kind) -> str:
    last, first = line.points[-1], line.points[0]
    if math.isnan(last.value):
        return f"{line.label}: no number, for its features all point one way"
    interval = interval_text(last.low, last.high)
    sentence = f"{line.label}: {last.value:.{kind.digits}f}{kind.unit} at strength {last.strength:g}"
    sentence += f" (95 % interval {interval})" if interval else ""
    return f"{sentence}, {first.value:.{kind.digits}f}{kind.unit} as they are" if kind.unit else sentence


def _baselines(measured: Sequence[Measurement], name: str, kind: Kind) -> Iterator[Line]:
    """Raw pixels once, and the untrained network of each backbone that another curve belongs to."""
    for baseline in BASELINES:
        seen: dict[tuple[Point, ...], str] = {}
        for one in measured:
            line = _line(one.backbone.label, f"baseline/{baseline}/", one, name, kind)
            if line is not None:
                seen.setdefault(line.points, line.label)
        for points, label in list(seen.items())[: MOST_LINES // 2]:
            yield Line(baseline if len(seen) == 1 else f"{baseline}, {label}", points, True)


def _line(label: str, prefix: str, measurement: Measurement, name: str, kind: Kind) -> Line | None:
    """The curve of a backbone, or with a prefix of its baseline; None where the record has none."""
    metrics = {
        metric.removeprefix(prefix): metric for metric in measurement.metrics if metric.startswith(prefix)
    }
    points = []
    for plain, metric in metrics.items():
        match = POINT.fullmatch(plain)
        if match and match["name"] == name and match["number"] == kind.number:
            points.append(Point(float(match["strength"]), *_value_and_ends(measurement.metrics, metric)))
    if not points:
        return None
    if kind.number == "relative":
        points.append(Point(0.0, 0.0, math.nan, math.nan))
    elif prefix + CLEAN in measurement.metrics:
        points.append(Point(0.0, *_value_and_ends(measurement.metrics, prefix + CLEAN)))
    return Line(label, tuple(sorted(points, key=lambda point: point.strength)), bool(prefix))


def _value_and_ends(metrics: Mapping[str, float | None], name: str) -> tuple[float, float, float]:
    value = metrics[name]
    low, high = interval_of(name, dict(metrics)) or (math.nan, math.nan)
    return (math.nan if value is None else float(value)), low, high


def _unit(measured: Sequence[Measurement], name: str) -> str:
    """What the strengths of a transformation count, as the protocol says."""
    units = _stated(measured[0]).get("units")
    said = units.get(name) if isinstance(units, dict) else None
    return said if isinstance(said, str) else ""


def _stated(measurement: Measurement) -> dict[str, Any]:
    """The protocol of transformed images, which in `diagnose` is a part of the record's."""
    protocol: dict[str, Any] = measurement.record["protocol"]
    stated = protocol.get("invariance", protocol)
    return stated if isinstance(stated, dict) else {}


def _mean_accuracy(measurement: Measurement) -> float:
    value = measurement.metrics.get("invariance/mean/top1")
    return 0.0 if value is None else float(value)
