"""The papers' questions, asked again at small size: suites of experiments, each with several seeds.

    python scripts/experiments.py simsiam                       measures what has no record yet, in parallel
    python scripts/experiments.py simsiam/predictor-none hub    an experiment, and a whole suite
    python scripts/experiments.py none                          tables and pictures again, from records alone
    python scripts/experiments.py simsiam --again 3             three random cells a second time, and compared
    python scripts/experiments.py --list                        suites, questions and what has been measured

An experiment is a file of configs/experiments that says what it changes, and in its header what was
published. A cell is an experiment with a seed: it pretrains for a minute or two of one core and is scored by
kNN. Its record is a line of RECORDS/SUITE.jsonl, and a cell that has one is not run again: a stopped command
goes on. What compares with published figures, of other images and longer training, is the direction of a
difference, not the number.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from measuring import HERE, take_options

from siamtransfer.cli import run
from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.experiments.comparison import mean_of
from siamtransfer.experiments.records import Records
from siamtransfer.experiments.run import Places, Wanted, measure_again, measure_missing, show, show_rows
from siamtransfer.experiments.suites import Experiment, ExperimentSuite, read_suites
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

RECIPES = HERE / "configs" / "experiments"
PAGE = HERE / "docs" / "EXPERIMENTS.md"
RECORDS = HERE / "docs" / "experiments"


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the mean kNN accuracies by experiment."""
    parser = _parser()
    asked = parser.parse_args(argv)
    suites = read_suites(RECIPES)
    places = Places(asked.runs, asked.records, asked.page)
    if asked.list:
        _list(suites, places)
        return None
    chosen = choose(asked.names, suites)
    if not asked.page.is_file():
        raise UserError(f"there is no page {asked.page} for the tables: name another by --page")
    if asked.option and asked.records == RECORDS:
        raise UserError(
            "--option makes other experiments than those of the records: name another folder by --records"
        )
    wanted = Wanted(asked.seeds, asked.parallel, tuple(f"--{option}" for option in asked.option))
    for name, experiments in chosen.items():
        if asked.again:
            measure_again(suites[name], asked.again, places, asked.parallel)
        else:
            measure_missing(suites[name], experiments, places, wanted)
    shown = list(chosen) or [
        name for name, suite in suites.items() if Records(places.records, suite).file.exists()
    ]
    metrics = {}
    for name in shown:
        show(suites[name], places)
        for experiment in suites[name].experiments:
            if (mean := mean_of(Records(places.records, suites[name]).all_of(experiment))) is not None:
                metrics[f"{experiment.id}/knn/top1"] = mean.value
    say(f"wrote the tables of {', '.join(shown) or 'no suite'} into {places.page}")
    for page in show_rows(suites, places):
        say(f"wrote rows into {page}")
    return {"task": "experiments", "metrics": metrics, "protocol": {"records": str(places.records)}}


def choose(names: list[str], suites: dict[str, ExperimentSuite]) -> dict[str, list[Experiment]]:
    """The experiments that are named, by suite in the order of the names; all without any.

    Raises:
        UserError: a suite or an experiment is not known.
    """
    if names == ["none"]:
        return {}
    chosen: dict[str, list[Experiment]] = {}
    for name in names or list(suites):
        suite, _, experiment = name.partition("/")
        if suite not in suites:
            raise UserError(f"{suite} is no suite of experiments; there are {', '.join(suites)}")
        known = {one.name: one for one in suites[suite].experiments}
        if experiment and experiment not in known:
            raise UserError(f"{suite} has no experiment {experiment}; there are {', '.join(known)}")
        wanted = [known[experiment]] if experiment else list(known.values())
        chosen.setdefault(suite, []).extend(one for one in wanted if one not in chosen.get(suite, []))
    return chosen


def _list(suites: dict[str, ExperimentSuite], places: Places) -> None:
    for name, suite in suites.items():
        records = Records(places.records, suite)
        done = sum(len(records.all_of(experiment)) for experiment in suite.experiments)
        of = suite.seeds * len(suite.experiments)
        print(f"{name}: {suite.title}; {done} of {of} cells measured\n    {suite.question}")
        for experiment in suite.experiments:
            print(f"    {experiment.name}: {experiment.question}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", help="SUITE or SUITE/EXPERIMENT; without any, all; `none` for none"
    )
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--seeds", type=_positive, help="seeds of each experiment (default: the suite's)")
    parser.add_argument(
        "--parallel", type=_positive, default=cpu_count(), help="cells at once (default: a core each)"
    )
    parser.add_argument("--again", type=_positive, help="measure so many random cells of each suite again")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/experiments"),
        help="folder of runs (default: runs/experiments)",
    )
    parser.add_argument(
        "--records", type=Path, default=RECORDS, help="folder of SUITE.jsonl (default: docs/experiments)"
    )
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="page of tables (default: docs/EXPERIMENTS.md)"
    )
    take_options(parser)
    return parser


def _positive(word: str) -> int:
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{word} is not 1 or more")
    return value


if __name__ == "__main__":
    run(main)
