"""Chooses the limits of the collapse alarm from runs that are known to be healthy or collapsed.

python scripts/collapse_limits.py --runs runs/experiments/*/*/seed-* --picture limits.png
python scripts/collapse_limits.py --records docs/experiments/*.jsonl --untrained 12.4
python scripts/collapse_limits.py --healthy runs/simclr runs/byol --collapsed runs/no-stop-gradient

Runs in --runs are labelled by their kNN accuracy: healthy where its last value beats the untrained network by
more than --margin points, collapsed where it does not beat it; between the two they are left out. Records of
experiments are labelled likewise, by their kNN accuracy on held-out images.

A run's score is the largest limit under which the alarm would not sound: it asks for --patience checks below
a limit in a row, so the score is the least, over all such rows of checks, of the largest value in one. The
limit that is chosen raises no false alarm: it lies midway between the lowest healthy run and the next
collapsed run below it. Youden's limit (the largest difference of true and false alarms) is printed beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from siamtransfer.cli import run
from siamtransfer.config.saved import read_saved_config
from siamtransfer.experiments.suites import HELD_OUT
from siamtransfer.pretraining.collapse import CollapseWatch
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.json_file import parse_json
from siamtransfer.utils.log import say
from siamtransfer.utils.small_files import read_small_text

MOST_BYTES = 2**27
"""Of a file of records."""

MEASURES = {"std": "health/std", "rank share": "health/rank_share"}


@dataclass(frozen=True)
class LabelledRun:
    """A run whose outcome is known; `scores` has a number for each of MEASURES."""

    folder: Path
    method: str
    collapsed: bool
    scores: dict[str, float]


@dataclass(frozen=True)
class Limit:
    """A limit of one measure, and the shares of collapsed and of healthy runs that it raises an alarm for."""

    value: float
    true_alarms: float
    false_alarms: float


@dataclass(frozen=True)
class Choice:
    """What the runs say of one measure: the area under its ROC, and two limits."""

    area: float
    without_false_alarms: Limit
    youden: Limit


def score(values: Sequence[float], patience: int) -> float:
    """The largest limit under which no alarm sounds.

    Raises:
        ValueError: there are fewer than `patience` values.
    """
    if len(values) < patience:
        raise ValueError(f"{len(values)} checks are fewer than the {patience} that an alarm needs")
    return min(max(values[start : start + patience]) for start in range(len(values) - patience + 1))


def label_of(rows: Sequence[dict[str, Any]], margin: float) -> bool | None:
    """Whether a run has collapsed, by its last kNN accuracy; None where that does not tell."""
    name = next((key for row in rows for key in row if key.startswith("knn/") and key.endswith("top1")), None)
    start = [row[f"baseline/untrained/{name}"] for row in rows if f"baseline/untrained/{name}" in row]
    if name is None or not start:
        return None
    return label_of_gain([row[name] for row in rows if name in row][-1] - start[0], margin)


def label_of_gain(gain: float, margin: float) -> bool | None:
    """Whether a run has collapsed that gains so many points over the untrained network."""
    return False if gain > margin else True if gain <= 0 else None


def read_records(
    file: Path, untrained: float, *, first: int, patience: int, margin: float
) -> list[LabelledRun | None]:
    """The cells of a suite of experiments, None for those that are left out; `untrained` is the accuracy of
    the untrained network on the same images.

    Raises:
        UserError: the file cannot be read.
    """
    runs: list[LabelledRun | None] = []
    for number, line in enumerate(read_small_text(file, MOST_BYTES).splitlines(), 1):
        cell: dict[str, Any] = parse_json(line, f"{file}, line {number}")
        label = label_of_gain(cell["numbers"][HELD_OUT] - untrained, margin)
        curves = {
            name: [value for step, value in cell["curves"].get(key, []) if step >= first]
            for name, key in MEASURES.items()
        }
        if label is None or any(len(values) < patience for values in curves.values()):
            runs.append(None)
            continue
        scores = {name: score(values, patience) for name, values in curves.items()}
        where = Path(f"{cell['experiment']}/seed-{cell['seed']}")
        runs.append(LabelledRun(where, cell["experiment"], label, scores))
    return runs


def read_run(
    folder: Path, collapsed: bool | None, *, first: int, patience: int, margin: float
) -> LabelledRun | None:
    """A run whose label is given, or found in its journal where it is None; None for one that is left out.
    Checks before step `first` do not count, as the alarm waits for `monitor.health_every`.

    Raises:
        UserError: there is no such run, or it has too few checks.
    """
    rows = read_rows(folder / "metrics.jsonl")
    if not rows:
        raise UserError(f"{folder / 'metrics.jsonl'} has no rows: is {folder} the folder of a run?")
    label = label_of(rows, margin) if collapsed is None else collapsed
    if label is None:
        return None
    checks = [row for row in rows if row["step"] >= first and MEASURES["std"] in row]
    try:
        scores = {name: score([row[key] for row in checks], patience) for name, key in MEASURES.items()}
    except ValueError as error:
        raise UserError(f"{folder} cannot be used: {error}; train longer, or lower --first") from error
    return LabelledRun(folder, read_saved_config(folder)["method"]["name"], label, scores)


def choose(runs: Sequence[LabelledRun], measure: str) -> Choice:
    """The limits of one measure; an alarm sounds for scores below a limit."""
    scores = np.array([each.scores[measure] for each in runs])
    collapsed = np.array([each.collapsed for each in runs])
    lowest = float(scores[~collapsed].min())
    below = scores[collapsed & (scores < lowest)]
    quiet = (lowest + float(below.max())) / 2 if len(below) else lowest
    false, true, thresholds = roc_curve(collapsed, -scores, drop_intermediate=False)
    best = int(np.argmax(true - false))
    youden = float(np.nextafter(-thresholds[best], np.inf)) if best else float(scores.min())
    return Choice(
        float(roc_auc_score(collapsed, -scores)),
        _limit(quiet, scores, collapsed),
        _limit(youden, scores, collapsed),
    )


def _limit(value: float, scores: Any, collapsed: Any) -> Limit:
    alarms = scores < value
    return Limit(value, float(alarms[collapsed].mean()), float(alarms[~collapsed].mean()))


def alarms(runs: Sequence[LabelledRun], limits: dict[str, float]) -> tuple[float, float]:
    """The shares of collapsed and of healthy runs for which either measure is below its limit."""
    sounded = {
        label: [
            any(each.scores[name] < limit for name, limit in limits.items())
            for each in runs
            if each.collapsed == label
        ]
        for label in (True, False)
    }
    true, false = (sum(each) / len(each) for each in sounded.values())
    return true, false


def table(runs: Sequence[LabelledRun], choices: dict[str, Choice]) -> list[str]:
    """The lines that are printed."""
    healthy = sum(not each.collapsed for each in runs)
    lines = [f"{healthy} healthy runs, {len(runs) - healthy} collapsed ones", ""]
    lines += [
        "| measure | area under ROC | limit | true, false alarms | Youden's limit | true, false alarms |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for name, choice in choices.items():
        cells = [name, f"{choice.area:.3f}"]
        for limit in (choice.without_false_alarms, choice.youden):
            cells += [f"{limit.value:.3f}", f"{limit.true_alarms:.0%}, {limit.false_alarms:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    present = CollapseWatch()
    for words, limits in (
        ("these limits", {name: choice.without_false_alarms.value for name, choice in choices.items()}),
        ("the present ones", {"std": present.min_std, "rank share": present.min_rank_share}),
    ):
        true, false = alarms(runs, limits)
        values = ", ".join(f"{name} {value:.3f}" for name, value in limits.items())
        lines.append(f"either below {words} ({values}): {true:.0%} true alarms, {false:.0%} false ones")
    lines.append("")
    for method in sorted({each.method for each in runs}):
        own = [each for each in runs if each.method == method and not each.collapsed]
        if own:
            least = ", ".join(f"{name} {min(each.scores[name] for each in own):.3f}" for name in MEASURES)
            lines.append(f"{method}: {len(own)} healthy runs, lowest {least}")
    return lines


def draw(runs: Sequence[LabelledRun], choices: dict[str, Choice], file: Path) -> None:
    """The runs by both measures with the limits, and the ROC of each measure."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for label, marker in ((False, "o"), (True, "x")):
        points = [each.scores for each in runs if each.collapsed == label]
        left.scatter(
            *([each[name] for each in points] for name in MEASURES),
            marker=marker,
            label="collapsed" if label else "healthy",
        )
    left.axvline(choices["std"].without_false_alarms.value, linestyle="--", color="grey")
    left.axhline(choices["rank share"].without_false_alarms.value, linestyle="--", color="grey")
    left.set(xlabel="score by std", ylabel="score by rank share", title="runs and limits")
    left.legend()
    collapsed = [each.collapsed for each in runs]
    for name, choice in choices.items():
        false, true, _ = roc_curve(collapsed, [-each.scores[name] for each in runs])
        right.plot(false, true, label=f"{name}: area {choice.area:.3f}")
    right.set(xlabel="false alarms", ylabel="true alarms", title="receiver operating characteristic")
    right.legend()
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=110)
    plt.close(figure)


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line; returns a record whose metrics are the limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="folders of runs, labelled by kNN")
    parser.add_argument("--records", type=Path, nargs="+", default=[], help="records of experiments")
    parser.add_argument("--untrained", type=float, help="accuracy of the untrained network, for --records")
    parser.add_argument("--healthy", type=Path, nargs="+", default=[], help="folders of healthy runs")
    parser.add_argument("--collapsed", type=Path, nargs="+", default=[], help="folders of collapsed runs")
    parser.add_argument(
        "--margin", type=float, default=2.0, help="points of kNN that a healthy run gains at least"
    )
    parser.add_argument("--first", type=int, default=50, help="step of the first check that counts")
    parser.add_argument("--patience", type=int, default=CollapseWatch.patience, help="checks in a row")
    parser.add_argument("--picture", type=Path, help="PNG to write")
    options = parser.parse_args(words)
    if options.patience < 1:
        raise UserError(f"--patience is {options.patience}; an alarm needs one check at least")
    how: dict[str, Any] = {"first": options.first, "patience": options.patience, "margin": options.margin}
    given: list[tuple[Path, bool | None]] = [(folder, None) for folder in options.runs]
    given += [(folder, False) for folder in options.healthy] + [
        (folder, True) for folder in options.collapsed
    ]
    read = [read_run(folder, label, **how) for folder, label in given]
    if options.records and options.untrained is None:
        raise UserError("--records needs --untrained: the kNN accuracy in percent of the untrained network")
    for file in options.records:
        read += read_records(file, options.untrained, **how)
    runs = [each for each in read if each is not None]
    for label, word in ((False, "healthy"), (True, "collapsed")):
        if all(each.collapsed != label for each in runs):
            raise UserError(
                f"none of {len(read)} runs is {word}: a limit needs runs of both kinds; name more"
            )
    choices = {name: choose(runs, name) for name in MEASURES}
    if len(runs) < len(read):
        say(f"{len(read) - len(runs)} runs left out, whose kNN does not tell whether they collapsed")
    for line in table(runs, choices):
        say(line)
    if options.picture:
        draw(runs, choices, options.picture)
        say(f"wrote {options.picture}")
    limits = {name: choice.without_false_alarms.value for name, choice in choices.items()}
    return {"task": "collapse-limits", "metrics": limits, "protocol": how, "provenance": {"runs": len(runs)}}


if __name__ == "__main__":
    run(main)
