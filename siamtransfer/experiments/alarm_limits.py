"""What limits the collapse alarm should have, by runs that are known to be healthy or collapsed.

The alarm asks for `patience` checks below a limit in a row. So a run's score by one measure is the largest
limit under which it would not sound: the least, over all such rows of checks, of the largest value in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from siamtransfer.config.saved import read_saved_config
from siamtransfer.experiments.records import CellRecord
from siamtransfer.experiments.suites import TEST, Experiment
from siamtransfer.methods.registry import METHODS
from siamtransfer.pretraining.collapse import CollapseWatch
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError

MEASURES = {"std": "health/std", "rank share": "health/rank_share"}
"""The measures that the alarm watches, and their names in a journal."""
UNTRAINED = "baseline/untrained/"


@dataclass(frozen=True)
class Rules:
    """How a run is read.

    Attributes:
        first: the step of the first check that counts, as the alarm waits for `monitor.health_every`.
        patience: checks in a row below a limit that raise the alarm.
        nothing: a run has collapsed that gains at most so many points of kNN over the untrained network.
        learnt: a run is healthy that gains more than so many; between the two it is left out.
    """

    first: int = 24
    patience: int = CollapseWatch.patience
    nothing: float = 4.0
    learnt: float = 6.0

    def label(self, gain: float) -> bool | None:
        """Whether a run with this gain has collapsed; None where that does not tell."""
        return False if gain > self.learnt else True if gain <= self.nothing else None

    def score(self, values: Sequence[float]) -> float:
        """The largest limit under which no alarm sounds.

        Raises:
            ValueError: there are fewer values than an alarm needs.
        """
        if len(values) < self.patience:
            raise ValueError(f"{len(values)} checks are fewer than the {self.patience} that an alarm needs")
        starts = range(len(values) - self.patience + 1)
        return min(max(values[start : start + self.patience]) for start in starts)


@dataclass(frozen=True)
class LabelledRun:
    """A run whose outcome is known.

    Attributes:
        checks: the values of each of MEASURES, in the order of the steps.
        scores: what `Rules.score` says of each.
    """

    name: str
    method: str
    collapsed: bool
    checks: Mapping[str, Sequence[float]]
    scores: Mapping[str, float]


def run_of_record(record: CellRecord, method: str, rules: Rules) -> LabelledRun | None:
    """A cell of an experiment; None where its outcome is not clear or its checks are too few."""
    reached, start = (record.numbers.get(name) for name in (TEST, f"{UNTRAINED}{TEST}"))
    label = None if reached is None or start is None else rules.label(reached - start)
    checks = _checks(record, rules.first)
    if label is None or any(len(values) < rules.patience for values in checks.values()):
        return None
    return _labelled(f"{record.experiment} seed {record.seed}", method, label, checks, rules)


def _checks(record: CellRecord, first: int = 0) -> dict[str, list[float]]:
    return {
        name: [value for step, value in record.curves.get(key, ()) if step >= first]
        for name, key in MEASURES.items()
    }


def _labelled(
    name: str, method: str, collapsed: bool, checks: Mapping[str, Sequence[float]], rules: Rules
) -> LabelledRun:
    scores = {measure: rules.score(values) for measure, values in checks.items()}
    return LabelledRun(name, method, collapsed, checks, scores)


def run_of_journal(folder: Path, collapsed: bool | None, rules: Rules) -> LabelledRun | None:
    """A run whose label is given, or found in its journal where it is None; None for one that is left out.

    Raises:
        UserError: there is no such run, or it has too few checks.
    """
    rows = read_rows(folder / "metrics.jsonl")
    if not rows:
        raise UserError(f"{folder / 'metrics.jsonl'} has no rows: is {folder} the folder of a run?")
    label = _label_of_rows(rows, rules) if collapsed is None else collapsed
    if label is None:
        return None
    counted = [
        row
        for row in rows
        if row["step"] >= rules.first and all(row.get(key) is not None for key in MEASURES.values())
    ]
    checks = {name: [row[key] for row in counted] for name, key in MEASURES.items()}
    try:
        return _labelled(str(folder), read_saved_config(folder)["method"]["name"], label, checks, rules)
    except ValueError as error:
        raise UserError(f"{folder} cannot be used: {error}; train longer, or lower --first") from error


def _label_of_rows(rows: Sequence[Mapping[str, Any]], rules: Rules) -> bool | None:
    name = next((key for row in rows for key in row if key.startswith("knn/") and key.endswith("top1")), None)
    start = [row[f"{UNTRAINED}{name}"] for row in rows if f"{UNTRAINED}{name}" in row]
    if name is None or not start:
        return None
    reached = [row[name] for row in rows if row.get(name) is not None]
    return rules.label(reached[-1] - start[0]) if reached else None


@dataclass(frozen=True)
class Limit:
    """A limit of one measure, and the shares of collapsed and of healthy runs that it raises an alarm for."""

    value: float
    true_alarms: float
    false_alarms: float


@dataclass(frozen=True)
class Choice:
    """What the runs say of one measure: the area under its ROC, and two limits.

    Attributes:
        without_false_alarms: midway between the lowest healthy run and the next collapsed run below it.
        youden: the limit with the largest difference of true and false alarms.
    """

    area: float
    without_false_alarms: Limit
    youden: Limit


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


def sounds(run: LabelledRun, limits: Mapping[str, float], patience: int = CollapseWatch.patience) -> bool:
    """Whether the alarm sounds in a run: in `patience` checks in a row one measure or the other is below its
    limit."""
    checks = zip(*(run.checks[name] for name in limits), strict=True)
    low = [
        any(value < limit for value, limit in zip(check, limits.values(), strict=True)) for check in checks
    ]
    return any(all(low[start : start + patience]) for start in range(len(low) - patience + 1))


def limits_in_force(method: str) -> dict[str, float]:
    """The limits of a method's alarm."""
    options = METHODS[method].Config
    return dict(zip(MEASURES, (options.least_std, options.least_rank_fraction), strict=True))


def alarm_sounds(record: CellRecord, experiment: Experiment) -> bool:
    """Whether the alarm sounds in a cell by the limits in force now, which may be others than those of its
    time; a record without the curves of health says what its run did."""
    checks = _checks(record)
    if not all(checks.values()):
        return record.alarms > 0
    method = experiment.settings.get("method.name", "simsiam")
    return sounds(LabelledRun(record.experiment, method, False, checks, {}), limits_in_force(method))
