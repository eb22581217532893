"""Draws a run's curves from its metrics.jsonl: loss, kNN with its baselines, health of the projections, and
the gradient view where the run took it (monitor.gradients_every).

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
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write


def main() -> dict[str, Any]:
    """The command line; returns where the picture is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("picture", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    rows = read_rows(arguments.run / "metrics.jsonl")
    if not rows:
        raise UserError(
            f"{arguments.run / 'metrics.jsonl'} has no rows: is {arguments.run} the folder of a run?"
        )

    gradients = has(rows, "gradient/ratio")
    figure, panels = plt.subplots(
        1 + gradients, 3, figsize=(13, 3.6 * (1 + gradients)), layout="constrained", squeeze=False
    )
    left, middle, right = panels[0]
    curve(left, rows, "loss", "loss")
    left.set(title="loss (-1: views agree)", xlabel="step")
    knn = next(
        (name for row in rows for name in row if name.startswith("knn/") and name.endswith("top1")), None
    )
    if knn:
        curve(middle, rows, knn, "trained backbone", marker="o")
        for name, style in (("pixels", ":"), ("untrained", "--"), ("start", "--")):
            for value in [row[key] for row in rows if (key := f"baseline/{name}/{knn}") in row]:
                middle.axhline(value, linestyle=style, color="grey", label=name)
        middle.legend()
    middle.set(title="kNN top-1 (%)", xlabel="step")
    curve(right, rows, "health/std", "output std x sqrt(d)")
    curve(right, rows, "health/centre_norm", "centre norm")
    curve(right, rows, "health/view_cosine", "cosine of views")
    right.set(title="health of the projections", xlabel="step", ylim=(0, 1.15))
    right.legend()
    if gradients:
        draw_gradients(panels[1], rows)
    with atomic_write(arguments.picture) as file:
        figure.savefig(file, format="png", dpi=110)
    return {"task": "plot", "metrics": {}, "protocol": {}, "provenance": {"picture": str(arguments.picture)}}


def draw_gradients(panels: Any, rows: list[dict[str, Any]]) -> None:
    """Draws what pulls and pushes an embedding, how alike things are, and how many directions there are."""
    left, middle, right = panels
    known = [name for name in ("ratio", "balance", "radial") if has(rows, f"gradient/{name}")]
    for name in known:  # some methods' balance cannot be told
        curve(left, rows, f"gradient/{name}", name)
    left.set(title="gradient: push over pull, and its weight", xlabel="step")
    for name, label in (
        ("parts_cosine", "push and pull"),
        ("view_cosine", "embedding and target"),
        ("others_cosine", "and other images' targets (size)"),
    ):
        curve(middle, rows, f"gradient/{name}", label)
    middle.set(title="cosines", xlabel="step", ylim=(-1.05, 1.05))
    curve(right, rows, "gradient/effective_rank", "effective rank of F")
    right.set(title="directions of embeddings", xlabel="step")
    for axes in panels:
        axes.legend()


def has(rows: list[dict[str, Any]], name: str) -> bool:
    """Whether there is any point of the series `name`."""
    return any(row.get(name) is not None for row in rows)


def curve(axes: Any, rows: list[dict[str, Any]], name: str, label: str, marker: str = "") -> None:
    """Adds the series `name` to `axes`."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    axes.plot([step for step, _ in points], [value for _, value in points], marker=marker, label=label)


if __name__ == "__main__":
    run(main)
