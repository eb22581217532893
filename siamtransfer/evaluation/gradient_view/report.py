"""The table and the curves of the gradient view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from siamtransfer.evaluation.gradient_view.checkpoints import RunCheckpoint
from siamtransfer.evaluation.gradient_view.decomposition import GUIDE, PREFIX
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say

PANELS_PER_ROW = 4


def say_table(checkpoints: Sequence[RunCheckpoint], numbers: Sequence[dict[str, float]]) -> None:
    """A column for each checkpoint, a row for each indicator."""
    for n, checkpoint in enumerate(checkpoints, 1):
        say(f"[{n}] {checkpoint.read.path}: {checkpoint.run}, step {checkpoint.step}")
    say(f"{'':16}" + "".join(f"{f'[{n + 1}]':>11}" for n in range(len(checkpoints))))
    for name, guide in GUIDE.items():
        values = [metrics[PREFIX + name] for metrics in numbers]
        cells = "".join(f"{'-' if math.isnan(value) else f'{value:.4g}':>11}" for value in values)
        say(f"{name:16}{cells}   {guide}")


def write_curves(
    path: Path, checkpoints: Sequence[RunCheckpoint], numbers: Sequence[dict[str, float]]
) -> None:
    """Draws every indicator over the steps of training as a PNG, a line for each run."""
    from matplotlib.figure import Figure

    runs: dict[str, list[tuple[int, dict[str, float]]]] = {}
    for checkpoint, metrics in zip(checkpoints, numbers, strict=True):
        runs.setdefault(checkpoint.run, []).append((checkpoint.step, metrics))
    names = [name for name in GUIDE if any(math.isfinite(metrics[PREFIX + name]) for metrics in numbers)]
    rows = -(-len(names) // PANELS_PER_ROW)
    figure = Figure(figsize=(3.2 * PANELS_PER_ROW, 2.8 * rows), layout="constrained")
    panels = list(figure.subplots(rows, PANELS_PER_ROW, squeeze=False).flat)
    for axes in panels[len(names) :]:
        axes.remove()
    for name, axes in zip(names, panels, strict=False):
        for label, points in runs.items():
            curve = sorted((step, metrics[PREFIX + name]) for step, metrics in points)
            axes.plot(*zip(*curve, strict=True), marker="o", label=label)
        axes.set(title=name, xlabel="step")
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", fontsize="small")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
