"""Curves over training as a picture: the mean over seeds, and the range of the seeds as a band."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from siamtransfer.experiments.records import CellRecord, Records
from siamtransfer.experiments.suites import ExperimentSuite, Picture
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write

mpl.use("Agg")
import matplotlib.pyplot as plt

_COLUMNS = 4


def draw(suite: ExperimentSuite, picture: Picture, records: Records, file: Path) -> None:
    """Writes the PNG.

    Raises:
        UserError: an experiment of the picture has no record, or none has a curve of the name.
    """
    rows = -(-len(picture.curves) // _COLUMNS)
    columns = min(_COLUMNS, len(picture.curves))
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    panels = np.atleast_1d(axes).ravel()
    drawn_panels = panels[: len(picture.curves)]
    for axis, (curve, title) in zip(drawn_panels, picture.curves.items(), strict=True):
        drawn = False
        for colour, (name, label) in enumerate(picture.cells.items()):
            found = list(records.all_of(suite[name]).values())
            if not found:
                raise UserError(f"{suite.name}/{name} has no record, so {picture.file} cannot be drawn")
            steps, values = stack(found, curve)
            if not len(steps):
                continue
            drawn = True
            axis.plot(steps, values.mean(axis=0), color=f"C{colour}", label=label, linewidth=1.4)
            axis.fill_between(
                steps, values.min(0), values.max(0), color=f"C{colour}", alpha=0.18, linewidth=0
            )
        if not drawn:
            raise UserError(
                f"no record of {suite.name} has the curve {curve}, so {picture.file} cannot be drawn"
            )
        axis.set(title=title, xlabel="step")
    for axis in panels[len(picture.curves) :]:
        axis.set_axis_off()
    lines: dict[str, Any] = {}  # of all panels: one of them may lack the curve of an experiment
    for axis in drawn_panels:
        handles, labels = axis.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    shown = {label: lines[label] for label in picture.cells.values() if label in lines}
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=len(shown), fontsize="small"
    )
    with atomic_write(file) as out:
        figure.savefig(out, format="png", dpi=100)
    plt.close(figure)


def stack(records: Sequence[CellRecord], curve: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps[T] that all records share, and the values[R, T] of the curve in those that have it."""
    found: list[dict[float, float]] = [
        {point[0]: point[1] for point in record.curves[curve]} for record in records if curve in record.curves
    ]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    return np.array(steps), np.array([[points[step] for step in steps] for points in found])
