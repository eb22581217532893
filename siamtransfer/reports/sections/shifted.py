"""The section of other images than those of the training set: corrupted ones, and ones of no known class."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from siamtransfer.leaderboard import Measurement
from siamtransfer.records.likeness import protocol_key
from siamtransfer.reports.charts import Chart, Series, Table, Value, View, line_chart, number
from siamtransfer.reports.section import Section
from siamtransfer.reports.sections.scores import scores_view
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.wording import interval_text

CORRUPTED = re.compile(r"robustness/(?P<kind>[^/]+/[^/]+)/severity=(?P<severity>\d+)/top1")
CLEAN = "robustness/clean/top1"
AUROC = re.compile(r"outside/(?P<set>.+)/(?P<score>[^/]+)/auroc")
NOTES = {
    "corruptions": (
        "One classifier, fitted on clean images, is scored on corrupted versions of the test images; "
        "severity 0 is the clean test set. Bars are 95 % intervals."
    ),
    "outside": (
        "AUROC: how often an image of a known class looks more known than one of no known class, in percent; "
        "50 is chance. Bars are 95 % intervals."
    ),
}


def shifted_section(sources: Sources) -> Section | None:
    """Accuracy by severity of corruptions, and the detection of unknown images; None where neither was
    measured."""
    corruptions, outside = _corruption_charts(sources), _outside_charts(sources)
    if not corruptions and not outside:
        return None
    notes = [NOTES["corruptions"]] * bool(corruptions) + [NOTES["outside"]] * bool(outside)
    return Section(
        "shifted",
        "Shifted images",
        "sections/charts.html",
        {"charts": [*corruptions, *outside], "notes": notes},
        scripts=("charts.js",),
        styles=("charts.css",),
        plotly=True,
    )


def _corruption_charts(sources: Sources) -> list[Chart]:
    """A chart for every protocol, with a view a corruption."""
    by_protocol: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in sources.measurements:
        measured_set = measurement.record["protocol"].get("measured_set", "clean")
        if measurement.task != "robustness" or measured_set != "clean":
            continue
        if any(map(CORRUPTED.fullmatch, measurement.metrics)):
            by_protocol[protocol_key(measurement.record)].append(measurement)
    charts = []
    for place, alike in enumerate(by_protocol.values()):
        newest = {one.backbone: one for one in sorted(alike, key=lambda one: one.time)}
        measured = sorted(newest.values(), key=lambda one: one.backbone.label)
        found = [CORRUPTED.fullmatch(name) for one in measured for name in one.metrics]
        kinds = dict.fromkeys(match["kind"] for match in found if match)
        views = [severity_view(kind, measured) for kind in kinds]
        charts.append(Chart(f"chart-corruptions-{place}", "Accuracy by severity", views, choice="Corruption"))
    return charts


def severity_view(kind: str, measured: Sequence[Measurement]) -> View:
    """Accuracy over severity for one corruption, such as `corrupted/fog`, a line a backbone."""
    lines, rows, sentences = [], [], []
    for one in measured:
        names = {0: CLEAN} if CLEAN in one.metrics else {}
        for name in one.metrics:
            match = CORRUPTED.fullmatch(name)
            if match and match["kind"] == kind:
                names[int(match["severity"])] = name
        if not any(names):
            continue
        points = [(severity, *_value_and_ends(one, name)) for severity, name in sorted(names.items())]
        severities, values, low, high = map(list, zip(*points, strict=True))
        lines.append(Series(one.backbone.label, severities, values, low, high, markers=True))
        rows += [[one.backbone.label, *map(number, point)] for point in points]
        last = points[-1]
        sentence = f"{one.backbone.label}: {last[1]:.1f} % at severity {last[0]}"
        interval = interval_text(*last[2:])
        sentence += f" (95 % interval {interval})" if interval else ""
        sentences.append(f"{sentence}, {points[0][1]:.1f} % clean" if 0 in names else sentence)
    figure = line_chart(lines, "severity", "top-1 (%)", xaxis={"dtick": 1})
    head = ["backbone", "severity", "top-1 (%)", "low", "high"]
    table: list[list[Value]] = rows
    more = f"; and {len(sentences) - 5} more" if len(sentences) > 5 else ""
    return View(_spoken(kind), figure, f"{'; '.join(sentences[:5])}{more}.", Table(head, table))


def _value_and_ends(measurement: Measurement, name: str) -> tuple[float, float, float]:
    metrics = measurement.metrics
    value, *ends = (metrics.get(f"{name}{end}") for end in ("", "/ci95_low", "/ci95_high"))
    low, high = (math.nan if end is None else float(end) for end in ends)
    return (math.nan if value is None else float(value)), low, high


def _spoken(kind: str) -> str:
    """`corrupted/gaussian_noise` as readers say it; of another group with its name."""
    group, _, name = kind.partition("/")
    spoken = name.replace("_", " ")
    return spoken if group == "corrupted" else f"{group}: {spoken}"


def _outside_charts(sources: Sources) -> list[Chart]:
    """A chart with a view for every outside set and score."""
    views = []
    for column in sources.every.columns:
        match = AUROC.fullmatch(column.metric) if column.task == "outside" else None
        if match is None or column.protocol.get("measured_set", "clean") == "clean":
            continue
        views.append(scores_view(column, list(sources.every.of(column).values()), column.title))
    if not views:
        return []
    return [Chart("chart-outside", "Images of no known class", views, choice="Set and score")]
