"""The section of confusions: which classes a backbone takes for which.

Up to 60 classes are a matrix, whose rows are true classes and add up to 100 %. Of more classes the pairs that
are confused most are drawn, with Wilson's interval (1927) of the share of the true class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siamtransfer.metrics.intervals import wilson_interval
from siamtransfer.records.predictions import confusion_matrix
from siamtransfer.reports.answers import Answer, Answers, collect_answers
from siamtransfer.reports.charts import (
    Chart,
    Figure,
    Table,
    Value,
    View,
    interval_chart,
    matrix_chart,
    number,
)
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources

MOST_CLASSES = 60
"""Classes of a matrix; its cells would be too small to see with more."""
MOST_CELLS = 500_000
"""Cells of all matrices of a page; beyond, pairs are drawn, for the page would be too large."""
PAIRS = 30
HEAD = ["true class", "taken for", "images", "of", "share (%)", "low", "high"]


@dataclass(frozen=True)
class Pair:
    """Two classes that are confused: how many of the `of` samples of the true one are taken for the other."""

    true: int
    taken_for: int
    count: int
    of: int

    @property
    def share(self) -> float:
        """In percent of the true class."""
        return 100 * self.count / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        low, high = wilson_interval(self.count, self.of)
        return 100 * low, 100 * high


def confusions_section(sources: Sources) -> Section | None:
    """Confusions of every backbone in every column with one label a sample; None where there is none."""
    charts, cells = [], 0
    for place, answers in enumerate(collect_answers(sources)):
        views = []
        for answer in answers.given:
            size = len(np.union1d(answers.labels, answer.predicted))
            cells += size * size if size <= MOST_CLASSES else 0
            views.append(
                confusions_view(answers, answer, matrix=size <= MOST_CLASSES and cells <= MOST_CELLS)
            )
        title = f"Confusions: {answers.task}"
        charts.append(
            Chart(f"chart-confusions-{place}", title, views, choice="Backbone", height=620, width=760)
        )
    if not charts:
        return None
    return Section(
        "confusions",
        "Confusions",
        "sections/charts.html",
        {"charts": charts, "notes": [], "pairs": False},
        scripts=("charts.js",),
        styles=("charts.css",),
        plotly=True,
        folded=len(charts) > 4,
    )


def confused_pairs(labels: np.ndarray, predicted: np.ndarray, most: int = PAIRS) -> list[Pair]:
    """The pairs of different classes with the most samples of the one predicted as the other, most first; of
    equal counts the smaller class number comes first."""
    classes, counts = confusion_matrix(labels, predicted)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(classes)) for place in order]
    return [
        Pair(int(classes[row]), int(classes[column]), int(counts[row, column]), int(totals[row]))
        for row, column in places
        if counts[row, column]
    ]


def confusions_view(answers: Answers, answer: Answer, *, matrix: bool) -> View:
    """The confusions of one backbone, as a matrix or as the pairs that are confused most."""
    pairs = confused_pairs(answers.labels, answer.predicted)
    names = {number: answers.name_of(number) for pair in pairs for number in (pair.true, pair.taken_for)}
    right = int((answers.labels == answer.predicted).sum())
    wrong = len(answers.labels) - right
    summary = f"{answer.name}: {right} of {len(answers.labels)} samples are right."
    if pairs:
        most = pairs[0]
        low, high = most.interval
        summary += (
            f" Most often {names[most.true]} is taken for {names[most.taken_for]}: {most.count} of {most.of} "
            f"({most.share:.1f} %, 95 % interval {low:.1f} to {high:.1f}), {100 * most.count / wrong:.2g} % "
            "of all mistakes. The largest of many counts is large by chance too."
        )
    rows: list[list[Value]] = [
        [
            *(names[pair.true], names[pair.taken_for], pair.count, pair.of),
            *(number(value, 3) for value in (pair.share, *pair.interval)),
        ]
        for pair in pairs
    ]
    figure = _matrix(answers, answer) if matrix else _pairs_chart(pairs, names)
    return View(answer.name, figure, summary, Table(HEAD, rows))


def _matrix(answers: Answers, answer: Answer) -> Figure:
    classes, counts = confusion_matrix(answers.labels, answer.predicted)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    names = [answers.name_of(int(label)) for label in classes]
    return matrix_chart(shares.tolist(), names, counts.tolist(), "predicted", "true", "% of the true class")


def _pairs_chart(pairs: list[Pair], names: dict[int, str]) -> Figure:
    named = [f"{names[pair.true]} → {names[pair.taken_for]}" for pair in pairs]
    ends = [pair.interval for pair in pairs]
    notes = [
        f"{name}: {pair.count} of {pair.of}, {pair.share:.1f} %, 95 % interval {low:.1f} to {high:.1f}"
        for name, pair, (low, high) in zip(named, pairs, ends, strict=True)
    ]
    figure = interval_chart(
        named,
        [pair.share for pair in pairs],
        [low for low, _ in ends],
        [high for _, high in ends],
        "% of the true class",
        notes=notes,
    )
    figure["layout"]["height"] = 100 + 22 * max(len(pairs), 3)
    return figure
