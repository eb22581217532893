"""The curves of a backbone and its baselines over the strength of each transformation, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from siamtransfer.evaluation.invariance.numbers import Group, Measured
from siamtransfer.evaluation.invariance.strengths import SCALES
from siamtransfer.metrics.paired_bootstrap import percentile_interval
from siamtransfer.utils.files import atomic_write

PANELS_PER_ROW = 5
COLOURS = {"": "#0072b2", "pixels": "#808080", "untrained": "#d55e00"}
MARKS = {"": "o", "pixels": "s", "untrained": "^"}


def write_curves(
    path: Path, measured: Sequence[Measured], strengths: Mapping[str, Sequence[float]], checkpoint: str
) -> None:
    """Writes a PNG: for each transformation the relative distance and, below it, the kNN accuracy over the
    strength, with 95 % intervals; a line for the checkpoint and for each baseline.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    names = list(strengths)
    columns = min(PANELS_PER_ROW, len(names))
    blocks = -(-len(names) // columns)
    figure = Figure(figsize=(3.0 * columns, 4.6 * blocks + 0.4), layout="constrained")
    panels = figure.subplots(2 * blocks, columns, squeeze=False, sharey="row")
    for place in range(blocks * columns):
        row, column = divmod(place, columns)
        upper, lower = panels[2 * row][column], panels[2 * row + 1][column]
        if place >= len(names):
            upper.remove()
            lower.remove()
            continue
        name = names[place]
        for one in measured:
            _draw(upper, one, name, strengths[name], "relative")
            _draw(lower, one, name, strengths[name], "top1")
        upper.axhline(1, color="#c0c0c0", linestyle=":", linewidth=1)
        upper.set_title(name.replace("_", " "), fontsize="medium")
        lower.set_xlabel(SCALES[name].unit, fontsize="x-small")
        if column == 0:
            upper.set_ylabel("distance / that of classes", fontsize="small")
            lower.set_ylabel("kNN (%)", fontsize="small")
    lines = panels[0][0].get_lines()[: len(measured)]
    labels = [one.followed.name or checkpoint for one in measured]
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), fontsize="small")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _draw(axes: object, one: Measured, name: str, strengths: Sequence[float], what: str) -> None:
    """A line with its interval as a band; strength 0 first."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    points = [_at_zero(one, what)]
    for strength in strengths:
        group = Group("", {(name, strength): 1.0})
        value, drawn = one.relative(group) if what == "relative" else one.top1(group)
        finite = bool(np.isfinite(drawn).any())
        points.append((value, *(percentile_interval(drawn) if finite else (np.nan, np.nan))))
    values, low, high = (list(each) for each in zip(*points, strict=True))
    key = one.followed.name
    x = [0.0, *strengths]
    axes.plot(x, values, color=COLOURS[key], marker=MARKS[key], markersize=4, linewidth=1.5)
    axes.fill_between(x, low, high, color=COLOURS[key], alpha=0.2, linewidth=0)


def _at_zero(one: Measured, what: str) -> tuple[float, float, float]:
    if what == "relative":
        return (0.0, 0.0, 0.0)
    value, drawn = one.clean()
    return (value, *percentile_interval(drawn))
