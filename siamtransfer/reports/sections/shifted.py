"""The section of other images than those of the training set: corrupted ones, and ones of no known class."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from siamtransfer.leaderboard import Measurement
from siamtransfer.records.likeness import protocol_key
from siamtransfer.records.metric_intervals import interval_of
from siamtransfer.reports.charts import (
    MOST_LINES,
    Chart,
    Series,
    Table,
    View,
    line_chart,
    number,
    vertical_line,
)
from siamtransfer.reports.naming import WORDS
from siamtransfer.reports.section import Section
from siamtransfer.reports.sections.scores import scores_view
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.wording import interval_text

CORRUPTED = re.compile(r"robustness/(?P<kind>[^/]+/(?!mean/)[^/]+)/severity=(?P<severity>\d+)/top1")
"""Numbers of single corruptions. The mean that a record holds beside them is over its own alone."""
CLEAN = "robustness/clean/top1"
AUROC = re.compile(r"outside/(?P<set>.+)/(?P<score>[^/]+)/auroc")
BY_NEIGHBOURS = f", by {WORDS['knn']}"
NOTES = {
    "corruptions": (
        "One classifier, fitted on clean images, is scored on corrupted versions of the test images; "
        "severity 0 is the clean test set. Bars are 95 % intervals."
    ),
    "outside": (
        "AUROC: how often an image of a known class looks more known than one of no known class, in percent; "
        "50, the dotted line, is chance. Bars are 95 % intervals."
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
        {
            "charts": [*corruptions, *outside],
            "notes": notes,
            "pairs": False,
        },
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
        measured = sorted(newest.values(), key=lambda one: one.metrics.get(CLEAN, 0.0), reverse=True)
        found = [CORRUPTED.fullmatch(name) for one in measured for name in one.metrics]
        kinds = list(dict.fromkeys(match["kind"] for match in found if match))
        views = [mean_view(kinds, measured)] if len(kinds) > 1 else []
        views += [severity_view(kind, measured) for kind in kinds]
        charts.append(Chart(f"chart-corruptions-{place}", "Accuracy by severity", views, choice="Corruption"))
    return charts


def severity_view(kind: str, measured: Sequence[Measurement]) -> View:
    """Accuracy over severity for one corruption, such as `corrupted/fog`, a line a backbone."""
    curves = {}
    for one in measured:
        names = {severity: name for (of, severity), name in _corrupted(one).items() if of == kind}
        if names:
            names |= {0: CLEAN} if CLEAN in one.metrics else {}
            curves[one.backbone.label] = [
                (severity, *_value_and_ends(one, name)) for severity, name in sorted(names.items())
            ]
    return _view_of_curves(_spoken(kind), curves)


def mean_view(kinds: Sequence[str], measured: Sequence[Measurement]) -> View:
    """The mean accuracy over all corruptions by severity, at those severities that a record has for all of
    them; without intervals, since the corrupted versions are of the same images."""
    curves = {}
    for one in measured:
        names = _corrupted(one)
        severities = sorted({severity for _, severity in names})
        points = [(0, one.metrics[CLEAN], math.nan, math.nan)] if CLEAN in one.metrics else []
        for severity in severities:
            values = [one.metrics[names[kind, severity]] for kind in kinds if (kind, severity) in names]
            if len(values) == len(kinds):
                points.append((severity, sum(values) / len(values), math.nan, math.nan))
        if points:
            curves[one.backbone.label] = points
    return _view_of_curves(f"mean of all {len(kinds)}", curves)


Point = tuple[int, float, float, float]
"""Severity, accuracy, and the ends of its interval."""


def _view_of_curves(name: str, curves: dict[str, list[Point]]) -> View:
    """A line for each backbone; of many the first are drawn."""
    lines, rows, sentences = [], [], []
    for label, points in curves.items():
        severities, values, low, high = map(list, zip(*points, strict=True))
        lines.append(Series(label, severities, values, low, high, markers=True))
        rows += [[label, *map(number, point)] for point in points]
        interval = interval_text(*points[-1][2:])
        sentence = f"{label}: {points[-1][1]:.1f} % at severity {points[-1][0]}"
        sentence += f" (95 % interval {interval})" if interval else ""
        sentences.append(f"{sentence}, {points[0][1]:.1f} % clean" if points[0][0] == 0 else sentence)
    figure = line_chart(lines[:MOST_LINES], "severity", "top-1 (%)", xaxis={"dtick": 1})
    drawn = (
        ""
        if len(lines) <= MOST_LINES
        else f" The {MOST_LINES} best on clean images are drawn of {len(lines)}."
    )
    more = f"; and {len(sentences) - 5} more" if len(sentences) > 5 else ""
    head = ["backbone", "severity", "top-1 (%)", "low", "high"]
    return View(name, figure, f"{'; '.join(sentences[:5])}{more}.{drawn}", Table(head, rows))


def _corrupted(measurement: Measurement) -> dict[tuple[str, int], str]:
    """The names of a record's numbers of corrupted images, by the corruption and its severity."""
    found = {name: CORRUPTED.fullmatch(name) for name in measurement.metrics}
    return {(match["kind"], int(match["severity"])): name for name, match in found.items() if match}


def _value_and_ends(measurement: Measurement, name: str) -> tuple[float, float, float]:
    value = measurement.metrics[name]
    low, high = interval_of(name, measurement.metrics) or (math.nan, math.nan)
    return (math.nan if value is None else float(value)), low, high


def _spoken(kind: str) -> str:
    """`corrupted/gaussian_noise` as readers say it; of another group with its name."""
    group, _, name = kind.partition("/")
    spoken = name.replace("_", " ")
    return spoken if group == "corrupted" else f"{group}: {spoken}"


def _outside_charts(sources: Sources) -> list[Chart]:
    """A chart with a view for every outside set and score."""
    found = []
    for column in sources.every.columns:
        match = AUROC.fullmatch(column.metric) if column.task == "outside" else None
        if match and column.protocol.get("measured_set", "clean") != "clean":
            score = WORDS.get(match["score"], match["score"].replace("_", " "))
            found.append((f"{match['set']}, by {score}", column))
    found.sort(key=lambda entry: not entry[0].endswith(BY_NEIGHBOURS))  # the main number first
    names = [name for name, _ in found]
    views = []
    for name, column in found:
        known_by = name if names.count(name) == 1 else column.title  # of unlike protocols
        view = scores_view(column, list(sources.every.of(column).values()), known_by)
        view.figure["layout"]["shapes"] = [vertical_line(50.0)]
        views.append(view)
    if not views:
        return []
    return [Chart("chart-outside", "Images of no known class", views, choice="Set and score")]
