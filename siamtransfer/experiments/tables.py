"""A suite's table in Markdown: what was published beside what was measured."""

from __future__ import annotations

from siamtransfer.experiments.comparison import Difference, Mean, differences, mean_of
from siamtransfer.experiments.records import Records
from siamtransfer.experiments.suites import HELD_OUT, TEST, Experiment, ExperimentSuite

MISSING = "not measured"
_HEALTH = {"health/std": "std x sqrt(d)", "health/effective_rank": "effective rank"}
_HEADS = {TEST: "kNN top-1", HELD_OUT: "kNN top-1, held out"}
_BASELINES = {"raw pixels": "baseline/pixels/", "the untrained backbone": "baseline/untrained/"}


def table(suite: ExperimentSuite, records: Records) -> str:
    """The rows in the suite's order; below them how many seeds there are and what stands without training."""
    gaps = differences(suite, records)
    heads = ["", "question", "published", _HEADS[suite.number], "difference", *_HEALTH.values(), "alarms"]
    heads += [score.name for score in suite.scores]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [_row(suite, experiment, records, gaps.get(experiment.name)) for experiment in suite.experiments]
    return "\n".join([*lines, "", _legend(suite, records), ""])


def _row(
    suite: ExperimentSuite, experiment: Experiment, records: Records, difference: Difference | None
) -> str:
    found = records.all_of(experiment)
    published = experiment.published
    if published != "none":
        published = f"{published} ({experiment.source})"
    cells = [f"`{experiment.name}`", experiment.question, published]
    if not found:
        return f"| {' | '.join([*cells, MISSING])} |{' |' * (4 + len(suite.scores))}"
    cells += [_mean(mean_of(found, suite.number), 1), _gap(suite, difference)]
    cells += [_value(mean_of(found, name), digits) for name, digits in zip(_HEALTH, (2, 1), strict=True)]
    sounded = sum(record.alarms > 0 for record in found.values())
    cells += [f"{sounded} of {len(found)}" if sounded else "none"]
    cells += [_mean(mean_of(found, score.name), 1) for score in suite.scores]
    return f"| {' | '.join(cells)} |"


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
    return text
