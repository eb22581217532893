"""What the seeds of experiments say together: means, and differences paired by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from siamtransfer.experiments.records import CellRecord, Records
from siamtransfer.experiments.suites import TEST, Experiment, ExperimentSuite
from siamtransfer.metrics.intervals import PairedTest, half_width, paired_t_test
from siamtransfer.metrics.multiple_comparisons import holm

ALPHA = 0.05


@dataclass(frozen=True)
class Mean:
    """The mean of a number over seeds.

    Attributes:
        half: half the width of its 95 % interval (Student); None for one seed.
        seeds: how many.
    """

    value: float
    half: float | None
    seeds: int


@dataclass(frozen=True)
class Difference:
    """An experiment minus another, paired by seed.

    Attributes:
        test: the mean difference with its 95 % interval and p-value.
        corrected: the p-value, corrected by Holm for all differences of the suite.
    """

    against: str
    test: PairedTest
    corrected: float

    @property
    def clear(self) -> bool:
        """Whether the two are told apart, over all differences of the suite together."""
        return self.corrected < ALPHA


def mean_of(records: Mapping[int, CellRecord], number: str = TEST) -> Mean | None:
    """Over the seeds that have the number; None where none has."""
    values = [record.numbers[number] for record in records.values() if number in record.numbers]
    if not values:
        return None
    return Mean(float(np.mean(values)), half_width(values) if len(values) > 1 else None, len(values))


def differences(suite: ExperimentSuite, records: Records) -> dict[str, Difference]:
    """Each experiment that has something to be compared with and shares two seeds with it, by name."""
    tests: dict[str, tuple[str, PairedTest]] = {}
    for experiment in suite.experiments:
        against = against_of(suite, experiment)
        if against is None:
            continue
        own, other = (_values(records, one, suite.number) for one in (experiment, suite[against]))
        shared = sorted(own.keys() & other.keys())
        if len(shared) > 1:
            gaps = np.array([own[seed] - other[seed] for seed in shared])
            tests[experiment.name] = against, paired_t_test(gaps)
    corrected = holm(np.array([test.p_value for _, test in tests.values()]))
    return {
        name: Difference(against, test, float(p_value))
        for (name, (against, test)), p_value in zip(tests.items(), corrected, strict=True)
    }


def against_of(suite: ExperimentSuite, experiment: Experiment) -> str | None:
    """The experiment that one is compared with; None for the baseline itself."""
    against = experiment.against or suite.baseline
    return None if against == experiment.name else against


def rank_correlation(suite: ExperimentSuite, records: Records, number: str) -> float | None:
    """Spearman's, of the means of the suite's own number and of another over its experiments; None where
    fewer than three have both."""
    found = [records.all_of(experiment) for experiment in suite.experiments]
    means = [(mean_of(each, suite.number), mean_of(each, number)) for each in found]
    pairs = [(own.value, other.value) for own, other in means if own and other]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else None


def _values(records: Records, experiment: Experiment, number: str) -> dict[int, float]:
    found = records.all_of(experiment)
    return {seed: record.numbers[number] for seed, record in found.items() if number in record.numbers}
