"""A suite's table in Markdown: what was published beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from siamtransfer.experiments.alarm_limits import alarm_sounds
from siamtransfer.experiments.comparison import Difference, Mean, differences, mean_of, rank_correlation
from siamtransfer.experiments.records import CellRecord, Records
from siamtransfer.experiments.suites import HELD_OUT, TEST, Experiment, ExperimentSuite

MISSING = "not measured"
_HEALTH = {"health/std": ("std x sqrt(d)", 2), "health/effective_rank": ("effective rank", 1)}
_HEADS = {TEST: "kNN top-1", HELD_OUT: "kNN top-1, held out"}
_BASELINES = {"raw pixels": "baseline/pixels/", "the untrained backbone": "baseline/untrained/"}


def table(suite: ExperimentSuite, records: Records) -> str:
    """All rows and columns in the suite's order; below them how many seeds there are and what stands without
    training."""
    rows = _rows(suite, suite.experiments, records)
    heads = ["", "question", "published", _HEADS[suite.number], "difference"]
    heads += [name for name, _ in _HEALTH.values()] + ["alarms"] + [score.name for score in suite.scores]
    lines = [row.line(row.published, [*row.accuracies, *row.health, *row.scores]) for row in rows]
    return "\n".join([*_head(heads), *lines, "", _legend(suite, records), ""])


def excerpt(suite: ExperimentSuite, records: Records, names: Sequence[str]) -> str:
    """Some rows for a page that tells of them: without sources and health, and without a legend.

    Raises:
        KeyError: the suite has no such experiment.
    """
    known = {experiment.name: experiment for experiment in suite.experiments}
    rows = _rows(suite, [known[name] for name in names], records)
    heads = ["", "question", "published", _HEADS[suite.number], "difference"]
    heads += [score.name for score in suite.scores]
    lines = [row.line(row.experiment.published, [*row.accuracies, *row.scores]) for row in rows]
    return "\n".join([*_head(heads), *lines, ""])


def _head(heads: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]


@dataclass(frozen=True)
class _Row:
    """What is known of one experiment."""

    suite: ExperimentSuite
    experiment: Experiment
    found: Mapping[int, CellRecord]
    difference: Difference | None

    def line(self, published: str, values: Sequence[str]) -> str:
        """The line of the table: a row without records has no values."""
        cells = [f"`{self.experiment.name}`", self.experiment.question, published]
        if not self.found:
            return f"| {' | '.join([*cells, MISSING])} |{' |' * (len(values) - 1)}"
        return f"| {' | '.join([*cells, *values])} |"

    @property
    def published(self) -> str:
        """The published figure, and where it stands."""
        published = self.experiment.published
        return published if published == "none" else f"{published} ({self.experiment.source})"

    @property
    def accuracies(self) -> list[str]:
        """The accuracy, and the difference from another experiment's."""
        return [_mean(mean_of(self.found, self.suite.number), 1), _gap(self.suite, self.difference)]

    @property
    def health(self) -> list[str]:
        """How far projections spread, and in how many runs the alarm sounds."""
        values = [_value(mean_of(self.found, name), digits) for name, (_, digits) in _HEALTH.items()]
        sounded = sum(alarm_sounds(record, self.experiment) for record in self.found.values())
        return [*values, f"{sounded} of {len(self.found)}" if sounded else "none"]

    @property
    def scores(self) -> list[str]:
        """The suite's further measurements."""
        return [_mean(mean_of(self.found, score.name), 1) for score in self.suite.scores]


def _rows(suite: ExperimentSuite, experiments: Sequence[Experiment], records: Records) -> list[_Row]:
    gaps = differences(suite, records)
    return [_Row(suite, one, records.all_of(one), gaps.get(one.name)) for one in experiments]


def _mean(mean: Mean | None, digits: int) -> str:
    if mean is None:
        return MISSING
    half = "" if mean.half is None else f" ± {mean.half:.{digits}f}"
    return f"{mean.value:.{digits}f}{half}"


def _value(mean: Mean | None, digits: int) -> str:
    return MISSING if mean is None else f"{mean.value:.{digits}f}"


def _gap(suite: ExperimentSuite, difference: Difference | None) -> str:
    """Such as `**-9.1** (-11.0 to -7.2)`, bold where the two are told apart."""
    if difference is None:
        return ""
    test = difference.test
    value = f"{test.difference:+.1f}"
    text = f"{f'**{value}**' if difference.clear else value} ({test.low:+.1f} to {test.high:+.1f})"
    return text if difference.against == suite.baseline else f"{text} from `{difference.against}`"


def _legend(suite: ExperimentSuite, records: Records) -> str:
    found = [record for one in suite.experiments for record in records.all_of(one).values()]
    seeds = sorted({len(records.all_of(one)) for one in suite.experiments})
    many = (
        f"{seeds[0]} seed{'s' * (seeds[0] != 1)}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    )
    parts = [f"{many} a row; mean and half the 95 % interval over seeds"]
    if suite.baseline:
        parts.append(f"differences from `{suite.baseline}` where no other row is named, paired by seed")
    parts.append("bold where a difference is told apart from zero over the whole table (Holm, 5 %)")
    text = "; ".join(parts) + "."
    for name, prefix in _BASELINES.items():
        values = [
            record.numbers[f"{prefix}{TEST}"] for record in found if f"{prefix}{TEST}" in record.numbers
        ]
        if values:
            text += f" {name[0].upper()}{name[1:]}: {sum(values) / len(values):.1f}."
    for score in suite.scores:
        if (correlation := rank_correlation(suite, records, score.name)) is not None:
            names = f"{_HEADS[suite.number]} and {score.name}"
            text += f" Rank correlation of {names} over the rows: {correlation:.2f}."
    return text
