"""Chooses the limits of the collapse alarm from runs that are known to be healthy or collapsed.

python scripts/collapse_limits.py --records docs/experiments/*.jsonl --picture limits.png
python scripts/collapse_limits.py --records docs/experiments/*.jsonl --methods dino
python scripts/collapse_limits.py --healthy runs/simclr runs/byol --collapsed runs/no-stop-gradient
python scripts/collapse_limits.py --runs runs/experiments/*/*/seed-*

Cells of experiments and the runs of --runs are labelled by their kNN accuracy: collapsed where it gains at
most --nothing points over the untrained network, healthy where it gains more than --learnt, left out between.

For each measure that the alarm watches the script prints the area under the ROC, the limit that raises no
false alarm (midway between the lowest healthy run and the next collapsed run below it) and Youden's limit
(the largest difference of true and false alarms); and for each method what its present limits do.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from measuring import HERE
from sklearn.metrics import roc_curve

from siamtransfer.cli import run
from siamtransfer.experiments.alarm_limits import (
    MEASURES,
    Choice,
    LabelledRun,
    Rules,
    choose,
    limits_in_force,
    run_of_journal,
    run_of_record,
    sounds,
)
from siamtransfer.experiments.records import Records
from siamtransfer.experiments.suites import read_suites
from siamtransfer.methods.registry import METHODS
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say

RECIPES = HERE / "configs" / "experiments"


def runs_of_records(files: Sequence[Path], rules: Rules) -> list[LabelledRun | None]:
    """The cells of suites of experiments, None for those that are left out. Networks that are not trained
    are none of them.

    Raises:
        UserError: a file is missing, damaged, or of no suite.
    """
    suites = read_suites(RECIPES) if files else {}
    runs: list[LabelledRun | None] = []
    for file in files:
        if not file.is_file():
            raise UserError(
                f"there is no file {file}; a suite that has run left its records in docs/experiments"
            )
        if file.stem not in suites:
            raise UserError(f"{file} holds no records of a suite; there are {', '.join(suites)}")
        records = Records(file.parent, suites[file.stem])
        for experiment in suites[file.stem].experiments:
            if experiment.settings.get("optim.lr") == 0:
                continue
            method = experiment.settings.get("method.name", "simsiam")
            found = records.all_of(experiment).values()
            runs += [run_of_record(record, method, rules) for record in found]
    return runs


def table(runs: Sequence[LabelledRun], choices: Mapping[str, Choice], patience: int) -> list[str]:
    """The lines that are printed of all runs together."""
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
    chosen = {name: choice.without_false_alarms.value for name, choice in choices.items()}
    true, false = (
        [sounds(each, chosen, patience) for each in runs if each.collapsed == label] for label in (1, 0)
    )
    return [*lines, "", f"either below its limit: {_share(true)} true alarms, {_share(false)} false ones"]


def table_by_method(runs: Sequence[LabelledRun], patience: int) -> list[str]:
    """The lines that are printed of each method: its lowest healthy runs, and what its limits do."""
    lines = [
        "",
        f"| method | limits | healthy runs | {' | '.join(f'lowest {name}' for name in MEASURES)} | "
        "false alarms | collapsed runs | true alarms |",
        f"|{'---|' * (6 + len(MEASURES))}",
    ]
    for method in sorted({each.method for each in runs}):
        limits = limits_in_force(method)
        healthy, collapsed = ([each for each in runs if (each.method, each.collapsed) == (method, label)]
                              for label in (False, True))  # fmt: skip
        lowest = [f"{min(each.scores[name] for each in healthy):.2f}" if healthy else "" for name in MEASURES]
        cells = [method, ", ".join(f"{limit:g}" for limit in limits.values()), str(len(healthy)), *lowest]
        for each in (healthy, collapsed):
            alarms = str(sum(sounds(one, limits, patience) for one in each)) if each else ""
            cells += [alarms] if each is healthy else [str(len(each)), alarms]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _share(values: Sequence[bool]) -> str:
    return f"{sum(values)} of {len(values)}"


def draw(runs: Sequence[LabelledRun], choices: Mapping[str, Choice], file: Path) -> None:
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
    options = _parser().parse_args(words)
    if options.patience < 1:
        raise UserError(f"--patience is {options.patience}; an alarm needs one check at least")
    if options.nothing > options.learnt:
        raise UserError(
            f"--nothing {options.nothing:g} is above --learnt {options.learnt:g}: a run would be both"
        )
    rules = Rules(options.first, options.patience, options.nothing, options.learnt)
    read = runs_of_records(options.records, rules)
    for folders, label in ((options.runs, None), (options.healthy, False), (options.collapsed, True)):
        read += [run_of_journal(folder, label, rules) for folder in folders]
    runs = [each for each in read if each is not None]
    if options.methods:
        runs = [each for each in runs if each.method in options.methods]
    for label, word in ((False, "healthy"), (True, "collapsed")):
        if all(each.collapsed != label for each in runs):
            raise UserError(
                f"none of {len(runs)} runs is {word}: a limit needs runs of both kinds; name more"
            )
    choices = {name: choose(runs, name) for name in MEASURES}
    if None in read:
        say(f"{read.count(None)} runs left out, whose kNN does not tell whether they collapsed, or too short")
    for line in [*table(runs, choices, rules.patience), *table_by_method(runs, rules.patience)]:
        say(line)
    if options.picture:
        draw(runs, choices, options.picture)
        say(f"wrote {options.picture}")
    limits = {name: choice.without_false_alarms.value for name, choice in choices.items()}
    return {
        "task": "collapse-limits",
        "metrics": limits,
        "protocol": vars(rules),
        "provenance": {"runs": len(runs)},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Rules()
    paths: dict[str, Any] = {"type": Path, "nargs": "+", "default": []}
    parser.add_argument("--records", **paths, help="records of experiments, SUITE.jsonl")
    parser.add_argument("--runs", **paths, help="folders of runs, labelled by kNN")
    parser.add_argument("--healthy", **paths, help="folders of healthy runs")
    parser.add_argument("--collapsed", **paths, help="folders of collapsed runs")
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), help="these methods alone (default: all)"
    )
    parser.add_argument(
        "--nothing", type=float, default=default.nothing, help="gain in points of a collapsed run at most"
    )
    parser.add_argument(
        "--learnt", type=float, default=default.learnt, help="gain in points that a healthy run is above"
    )
    parser.add_argument(
        "--first", type=int, default=default.first, help="step of the first check that counts"
    )
    parser.add_argument("--patience", type=int, default=default.patience, help="checks in a row")
    parser.add_argument("--picture", type=Path, help="PNG to write")
    return parser


if __name__ == "__main__":
    run(main)
