"""The section of calibration: whether a backbone's classifier is right as often as its confidence says."""

from __future__ import annotations

import math

import numpy as np

from siamtransfer.metrics.calibration import Reliability, expected_error, reliability
from siamtransfer.metrics.intervals import half_width, wilson_interval
from siamtransfer.reports.answers import Answer, Answers, collect_answers
from siamtransfer.reports.charts import GREY, Chart, Figure, Series, Table, View, line_chart, number
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources

RESAMPLES = 200
"""For the interval of the expected calibration error; the page has many of them."""
EXPLAINED = (
    "A point is a bin of confidence, larger with more samples; on the diagonal a classifier is right as "
    "often as it says, and below it, it says too much. Bars are Wilson's 95 % intervals of the share of "
    "right answers. ECE, the expected calibration error, is the mean distance from the diagonal over the "
    "samples (Guo et al. 2017, 15 bins); its interval is that of the true error, by a bootstrap of "
    f"{RESAMPLES} resamples."
)
HEAD = ["confidence from", "to", "samples", "mean confidence", "share of right answers", "low", "high"]


def calibration_section(sources: Sources) -> Section | None:
    """A reliability diagram for every backbone whose confidences were kept; None where there is none."""
    charts: list[Chart] = []
    drawn: list[Answers] = []
    for place, answers in enumerate(collect_answers(sources, of_outside=True)):
        views = [
            calibration_view(answers, answer) for answer in answers.given if answer.confidences is not None
        ]
        if views and not any(_is_same(answers, other) for other in drawn):
            drawn.append(answers)
            title = f"Reliability: {answers.task}"
            charts.append(
                Chart(f"chart-calibration-{place}", title, views, choice="Backbone", height=440, width=620)
            )
    if not charts:
        return None
    return Section(
        "calibration",
        "Calibration",
        "sections/charts.html",
        {
            "charts": charts,
            "notes": [EXPLAINED],
            "pairs": True,
        },
        scripts=("charts.js",),
        styles=("charts.css",),
        plotly=True,
        folded=len(charts) > 2,
    )


def _is_same(one: Answers, other: Answers) -> bool:
    """Whether two columns hold the same answers: `outside` fits the head of `linear` once more."""
    theirs = {answer.name: answer.confidences for answer in other.given}
    return np.array_equal(one.labels, other.labels) and all(
        answer.confidences is not None
        and (confidences := theirs.get(answer.name)) is not None
        and np.array_equal(answer.confidences, confidences)
        for answer in one.given
    )


def calibration_view(answers: Answers, answer: Answer) -> View:
    """The reliability diagram of one backbone, whose confidences are known."""
    assert answer.confidences is not None
    right = answer.predicted == answers.labels
    bins = reliability(answer.confidences, right)
    error, low, high = expected_error(answer.confidences, right, resamples=RESAMPLES)
    mean, accuracy = 100 * float(answer.confidences.mean()), 100 * float(right.mean())
    summary = (
        f"{answer.name}: ECE {error:.1f} % (95 % interval {low:.1f} to {high:.1f}, "
        f"n = {len(right)}). Mean confidence {mean:.1f} %, right answers "
        f"{accuracy:.1f} %: {_verdict(answer.confidences - right)}."
    )
    intervals = [_wilson(bins, place) for place in range(len(bins.counts))]
    full = [place for place in range(len(bins.counts)) if bins.counts[place]]
    rows = [
        [
            number(bins.low[place], 3),
            number(bins.high[place], 3),
            int(bins.counts[place]),
            number(bins.confidence[place], 3),
            number(bins.accuracy[place], 3),
            *(number(end, 3) for end in intervals[place]),
        ]
        for place in full
    ]
    return View(answer.name, _diagram(answer.name, bins, full, intervals), summary, Table(HEAD, rows))


def _verdict(excess: np.ndarray) -> str:
    """Whether confidences are too high on the whole, by Student's interval of their excess over right
    answers, float[Q]."""
    mean, half = float(excess.mean()), half_width(excess) if len(excess) > 1 else math.inf
    if abs(mean) <= half:
        return "on the whole no difference can be told"
    return "on the whole too sure" if mean > 0 else "on the whole not sure enough"


def _diagram(name: str, bins: Reliability, full: list[int], intervals: list[tuple[float, float]]) -> Figure:
    """Share of right answers over mean confidence, both from 0 to 1, and the diagonal."""
    points = Series(
        name,
        bins.confidence[full].tolist(),
        bins.accuracy[full].tolist(),
        [intervals[place][0] for place in full],
        [intervals[place][1] for place in full],
        markers=True,
        notes=[
            f"confidence {bins.confidence[place]:.2f}, right {bins.accuracy[place]:.2f}, "
            f"{bins.counts[place]} samples"
            for place in full
        ],
    )
    axis = {"range": [-0.02, 1.02], "dtick": 0.2}
    figure = line_chart([points], "mean confidence", "share of right answers", xaxis=axis, yaxis=axis)
    diagonal = {"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "layer": "below"}
    figure["layout"]["shapes"] = [{**diagonal, "line": {"color": GREY, "width": 1, "dash": "dot"}}]
    most = int(bins.counts.max())
    figure["data"][0]["mode"] = "markers"
    figure["data"][0]["marker"]["size"] = [
        round(6 + 12 * math.sqrt(int(bins.counts[place]) / most), 1) for place in full
    ]
    figure["data"][0]["hovertemplate"] = "%{text}<extra></extra>"
    return figure


def _wilson(bins: Reliability, place: int) -> tuple[float, float]:
    """The interval of the share of right answers in a bin; NaN in an empty one."""
    count = int(bins.counts[place])
    if not count:
        return float("nan"), float("nan")
    hits = round(float(bins.accuracy[place]) * count)
    return wilson_interval(hits, count)
