"""Every method on embedded images under one budget: the same images, backbone, batch and number of steps.

    python scripts/methods.py                       configs/pretrain/scenes-*.yaml, and SimSiam's demo.yaml
    python scripts/methods.py swav byol             these
    python scripts/methods.py none --table table.md read what was measured

Each pretrains for some minutes of one core and is scored by kNN and a linear probe; one that has been scored
is not run again. The budget is in images and steps: methods with local crops see more views of an image, and
take longer for it. One seed, little tuned: the table can say that a method learns here, not which is best.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measuring import HERE, chosen, parser_of, stage

from siamtransfer.cli import run
from siamtransfer.config import read_saved_config
from siamtransfer.methods import METHODS
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.files import write_text
from siamtransfer.utils.log import say
from siamtransfer.views.config import ViewsConfig

CONFIGS = HERE / "configs" / "pretrain"
EPOCHS = 12
"""Of 10,000 images; the demo's SimSiam is trained for longer there."""
KNN, LINEAR = "knn/k=20/T=0.07/top1", "linear/top1"
MISSING = "not measured"
HEALTH = ("health/std", "health/effective_rank")
BASELINES = {"raw pixels": f"baseline/pixels/{KNN}", "the untrained backbone": f"baseline/untrained/{KNN}"}
HEADER = (
    "| | views | optimiser | kNN top-1 (95 %) | linear top-1 (95 %) | std x sqrt(d) | effective rank |",
    "|---|---|---|---|---|---|---|",
)


def config_of(name: str) -> Path:
    """A method's configuration for the embedded scenes."""
    return CONFIGS / ("demo.yaml" if name == "simsiam" else f"scenes-{name}.yaml")


MEASURED = tuple(name for name in METHODS if config_of(name).exists())


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """The command line; returns the measured accuracies by method."""
    asked = parser_of(__doc__, kind="method", runs="runs/methods").parse_args(argv)
    for name in chosen(asked.names, MEASURED, "method"):
        measure(name, asked.runs / name, [f"--{option}" for option in asked.option])
    measured = {name: found for name in MEASURED if (found := numbers(asked.runs / name))}
    if asked.table:
        write_text(asked.table, table(asked.runs, measured))
        say(f"wrote {asked.table}")
    metrics = {
        f"{name}/{number}": found[number]
        for name, found in measured.items()
        for number in (KNN, LINEAR, *BASELINES.values())
        if number in found
    }
    return {"task": "methods", "metrics": metrics, "protocol": {"epochs": EPOCHS}}


def measure(name: str, folder: Path, options: list[str]) -> None:
    """Pretrains and scores, unless that was done; `options` go to pretrain/main.py."""
    checkpoint, score = folder / "checkpoint.pth", folder / "linear.json"
    if score.exists():
        return
    budget = ["--config", config_of(name), "--optim.epochs", EPOCHS, "--run.dir", folder]
    stage("pretrain/main.py", *budget, "--resume", *options)
    stage("eval/knn.py", checkpoint, "--k", 20, "--record", folder / "knn.json")
    stage("eval/linear.py", checkpoint, "--record", score)


def numbers(folder: Path) -> dict[str, float]:
    """What was measured: accuracies with their intervals, baselines, and the last health of the projections;
    empty before the method was scored."""
    if not (folder / "linear.json").exists():
        return {}
    found: dict[str, float] = {}
    for file in ("knn.json", "linear.json"):
        found |= json.loads((folder / file).read_text())["metrics"]
    rows = read_rows(folder / "metrics.jsonl")
    wanted = (*BASELINES.values(), *HEALTH)
    return found | {name: row[name] for row in rows for name in wanted if name in row}


def table(runs: Path, measured: dict[str, dict[str, float]]) -> str:
    """Markdown: the best kNN first, baselines below."""
    lines = list(HEADER)
    for name, found in sorted(measured.items(), key=lambda item: -item[1][KNN]):
        config = read_saved_config(runs / name)
        settings = config["optim"]
        cells = [
            f"{name}, {settings['epochs']} epochs",
            str(len(ViewsConfig.from_dict(config["views"]).build().views)),
            f"{settings['name']} {settings['lr']:g}",
            *(interval(found, number) for number in (KNN, LINEAR)),
            *(f"{found[number]:.2f}" if number in found else MISSING for number in HEALTH),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for name, number in BASELINES.items():
        seen = sorted({f"{found[number]:.1f}" for found in measured.values() if number in found})
        lines.append(f"| {name} | | | {', '.join(seen) or MISSING} | | | |")
    return "\n".join(lines) + "\n"


def interval(found: dict[str, float], number: str) -> str:
    """An accuracy with its 95 % interval."""
    low, high = (found[number.replace("top1", f"ci95_{end}")] for end in ("low", "high"))
    return f"{found[number]:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    run(main)
