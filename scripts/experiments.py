"""SimSiam's own questions, and some beyond, asked again on embedded images within a small budget each.

    python scripts/experiments.py                            every experiment of configs/experiments
    python scripts/experiments.py paper-predictor-none …     these
    python scripts/experiments.py none --table table.md --figure stop-gradient.png      read what was measured

An experiment is a file that says what it changes of base.yaml, and in its header what was published. Each
pretrains for about a minute of one core and is scored by kNN; one that has been scored is not run again. The
table sets published figures, of other images and longer training, beside the measured ones: what compares is
the direction of a difference, not the numbers. The figure is the paper's figure 2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from measuring import HERE, chosen, parser_of, stage

from siamtransfer.cli import run
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, write_text
from siamtransfer.utils.log import say

RECIPES = HERE / "configs" / "experiments"
BASE = RECIPES / "base.yaml"
WITH, WITHOUT = "paper-stop-gradient", "paper-stop-gradient-none"
KNN = "knn/k=20/T=0.07"
PARTS = {"paper": "The paper's questions", "ours": "Beyond the paper"}
MISSING = "not measured"


@dataclass(frozen=True)
class Experiment:
    """A recipe: its name, what it asks, and what was published where."""

    name: str
    question: str
    published: str
    source: str

    @property
    def file(self) -> Path:
        return RECIPES / f"{self.name}.yaml"


def read_experiment(file: Path) -> Experiment:
    """The header of a recipe: lines `# Question: …`, `# Published: …` and `# Source: …`, each once.

    Raises:
        UserError: one is missing.
    """
    header = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    found = {word: rest.strip() for word, colon, rest in (line.partition(":") for line in header) if colon}
    try:
        return Experiment(file.stem, found["Question"], found["Published"], found["Source"])
    except KeyError as error:
        raise UserError(f"{file} lacks a line `# {error.args[0]}: …` in its header") from error


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """The command line; returns the measured kNN accuracies by experiment."""
    parser = parser_of(__doc__, kind="experiment", runs="runs/experiments")
    parser.add_argument("--figure", type=Path, default=None, help="PNG of figure 2 to write")
    asked = parser.parse_args(argv)
    known = {file.stem: read_experiment(file) for file in sorted(RECIPES.glob("*-*.yaml"))}
    for name in chosen(asked.names, known, "experiment"):
        measure(known[name], asked.runs / name, [f"--{option}" for option in asked.option])
    measured = {name: numbers(asked.runs / name) for name in known}
    if asked.table:
        write_text(asked.table, caption(asked.runs / WITH) + table(list(known.values()), measured))
        say(f"wrote {asked.table}")
    if asked.figure:
        draw(asked.runs, asked.figure)
        say(f"wrote {asked.figure}")
    metrics = {f"{name}/{KNN}/top1": found["top1"] for name, found in measured.items() if found}
    return {"task": "experiments", "metrics": metrics, "protocol": {"base": str(BASE.relative_to(HERE))}}


def measure(experiment: Experiment, folder: Path, options: list[str]) -> None:
    """Pretrains and scores, unless that was done; `options` go to pretrain/main.py."""
    score = folder / "knn.json"
    if score.exists():
        return
    say(f"\n{experiment.name}: {experiment.question}")
    given = ["--config", BASE, "--config", experiment.file, "--run.dir", folder, "--resume", *options]
    stage("pretrain/main.py", *given)
    stage("eval/knn.py", folder / "checkpoint.pth", "--k", 20, "--device", "cpu", "--record", score)


def numbers(folder: Path) -> dict[str, float]:
    """What was measured: kNN top-1 with its 95 % interval and the last health of the projections; empty
    before the experiment was scored."""
    score = folder / "knn.json"
    if not score.exists():
        return {}
    metrics = json.loads(score.read_text())["metrics"]
    health = [row for row in read_rows(folder / "metrics.jsonl") if "health/std" in row][-1]
    return {name: metrics[f"{KNN}/{name}"] for name in ("top1", "ci95_low", "ci95_high")} | {
        "std": health["health/std"],
        "rank": health["health/effective_rank"],
    }


def caption(baseline: Path) -> str:
    """What the numbers are, and below what they say nothing."""
    text = (
        "Published: linear top-1 on ImageNet, ResNet-50, 100 epochs, where nothing else is said. Measured: "
        "kNN (k = 20) on one-object Fashion Scenes, by configs/experiments/base.yaml, one seed"
    )
    for row in read_rows(baseline / "metrics.jsonl"):
        if (name := f"baseline/untrained/{KNN}/top1") in row:
            pixels = row[f"baseline/pixels/{KNN}/top1"]
            text += f"; raw pixels {pixels:.1f}, the untrained backbone {row[name]:.1f}"
    return f"{text}.\n\n"


def table(experiments: list[Experiment], measured: dict[str, dict[str, float]]) -> str:
    """Markdown: published and measured, the paper's questions first."""
    lines = []
    for part, title in PARTS.items():
        lines += [
            f"**{title}**",
            "",
            "| Experiment | Question | Published | kNN top-1 (95 %) | std x sqrt(d) | effective rank |",
            "|---|---|---|---|---|---|",
        ]
        for one in experiments:
            if one.name.startswith(f"{part}-"):
                cells = [f"`{one.name}`", one.question, f"{one.published} ({one.source})"]
                lines.append(f"| {' | '.join([*cells, *measured_cells(measured[one.name])])} |")
        lines.append("")
    return "\n".join(lines)


def measured_cells(found: dict[str, float]) -> list[str]:
    """The measured columns of a row."""
    if not found:
        return [MISSING, "", ""]
    interval = f"{found['ci95_low']:.1f} to {found['ci95_high']:.1f}"
    return [f"{found['top1']:.1f} ({interval})", f"{found['std']:.2f}", f"{found['rank']:.1f}"]


def draw(runs: Path, picture: Path) -> None:
    """Figure 2: loss, spread of the outputs and kNN, with and without the stop-gradient."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for name, label in ((WITH, "with stop-gradient"), (WITHOUT, "without")):
        rows = read_rows(runs / name / "metrics.jsonl")
        if not rows:
            raise UserError(f"{runs / name} holds no run: measure {WITH} and {WITHOUT} first")
        for axis, key in zip(axes, ("loss", "health/std", f"{KNN}/top1"), strict=True):
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            marker = "o" if key.startswith("knn") else None
            axis.plot(
                [step for step, _ in points], [value for _, value in points], marker=marker, label=label
            )
    titles = ("loss (-1: views agree)", "output std x sqrt(d) (0: collapsed)", "kNN top-1 (%)")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="step")
    axes[0].legend()
    with atomic_write(picture) as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    run(main)
