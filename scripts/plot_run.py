"""Draws a run's curves from its metrics.jsonl: loss, kNN with its baselines, health of the projections.

python scripts/plot_run.py runs/demo curves.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from siamtransfer.cli import run
from siamtransfer.errors import UserError
from siamtransfer.files import atomic_write
from siamtransfer.journal import read_rows


def main() -> dict[str, Any]:
    """The command line; returns where the picture is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("picture", type=Path, help="PNG to write")
    asked = parser.parse_args()
    rows = read_rows(asked.run / "metrics.jsonl")
    if not rows:
        raise UserError(f"{asked.run / 'metrics.jsonl'} has no rows: is {asked.run} the folder of a run?")

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    curve(left, rows, "loss", "loss")
    left.set(title="loss (-1: views agree)", xlabel="step")
    knn = next(
        (name for row in rows for name in row if name.startswith("knn/") and name.endswith("top1")), None
    )
    if knn:
        curve(middle, rows, knn, "SimSiam", marker="o")
        for name, style in (("pixels", ":"), ("untrained", "--")):
            value = next(row[key] for row in rows if (key := f"baseline/{name}/{knn}") in row)
            middle.axhline(value, linestyle=style, color="grey", label=name)
        middle.legend()
    middle.set(title="kNN top-1 (%)", xlabel="step")
    curve(right, rows, "health/std", "output std x sqrt(d)")
    curve(right, rows, "health/centre_norm", "centre norm")
    curve(right, rows, "health/view_cosine", "cosine of views")
    right.set(title="health of the projections", xlabel="step", ylim=(0, 1.15))
    right.legend()
    with atomic_write(asked.picture) as file:
        figure.savefig(file, format="png", dpi=110)
    return {"task": "plot", "metrics": {}, "protocol": {}, "provenance": {"picture": str(asked.picture)}}


def curve(axes: Any, rows: list[dict[str, Any]], name: str, label: str, marker: str = "") -> None:
    """Adds the series `name` to `axes`."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    axes.plot([step for step, _ in points], [value for _, value in points], marker=marker, label=label)


if __name__ == "__main__":
    run(main)
