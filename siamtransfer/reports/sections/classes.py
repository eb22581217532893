"""The section of classes: in which of them two backbones differ, for a pair that the reader chooses.

Any two of many backbones may be chosen, so the page holds the labels and a bit a sample and backbone, and
templates/classes.js counts. In a class of n samples, of which b are right by the first backbone alone and c
by the second alone:

- the test is McNemar's in its exact form (1947), corrected over the classes by Holm (1979);
- the 95 % interval of the difference (c - b) / n is that of Bonett & Price (2012): Wald's with one sample
  added to b and to c, which covers in small classes too.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from siamtransfer.reports.answers import Answers, collect_answers
from siamtransfer.reports.charts import Chart, Table, View, interval_chart
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources

MOST_SAMPLES = 4_000_000
"""Samples times backbones of a page; a bit each. Columns beyond are left out, and the section says so."""
EXPLAINED = (
    "Right of the line the second backbone is better. Bars are 95 % intervals of the difference (Bonett & "
    "Price 2012). A class counts as different where McNemar's exact test, corrected over all classes by "
    "Holm, has p < {alpha:g}; without the correction up to one class in {one_in} would differ by chance."
)


def classes_section(sources: Sources) -> Section | None:
    """Differences by class; None where no two backbones answered the same questions."""
    columns, left_out, samples = [], [], 0
    for answers in collect_answers(sources):
        if len(answers.given) < 2 or len(np.unique(answers.labels)) < 2:
            continue
        samples += len(answers.labels) * len(answers.given)
        if samples > MOST_SAMPLES:
            left_out.append(answers.task)
        else:
            columns.append(column_data(answers))
    if not columns:
        return None
    alpha = sources.options.alpha
    empty = interval_chart([], [], [], [], "difference (points)", zero=True)
    head = ["class", "n", "first (%)", "second (%)", "difference", "low", "high", "p (Holm)"]
    chart = Chart("chart-classes", "Difference by class", [View("", empty, "", Table(head, []))], height=420)
    return Section(
        "classes",
        "Classes",
        "sections/classes.html",
        {
            "chart": chart,
            "columns": [column["title"] for column in columns],
            "names": columns[0]["names"],
            "explained": EXPLAINED.format(alpha=alpha, one_in=round(1 / alpha)),
            "left_out": left_out,
        },
        data={"columns": columns, "alpha": alpha},
        scripts=("charts.js", "classes.js"),
        styles=("charts.css",),
        plotly=True,
    )


def column_data(answers: Answers) -> dict[str, Any]:
    """What the page needs of a column: `labels`, little-endian uint16 or uint32 numbers of `classes`;
    `right`, by backbone a bit a sample, the first in the highest bit of the first byte; all in base64."""
    present, places = np.unique(answers.labels, return_inverse=True)
    narrow = len(present) <= np.iinfo(np.uint16).max
    return {
        "title": answers.task,
        "names": [answer.name for answer in answers.given],
        "classes": [answers.name_of(int(label)) for label in present],
        "width": 2 if narrow else 4,
        "labels": _base64(places.astype("<u2" if narrow else "<u4")),
        "right": [_base64(np.packbits(answer.predicted == answers.labels)) for answer in answers.given],
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
