"""A run's score is what the alarm says of it; labelled runs give limits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.experiment_records import record_of, small_suite

from siamtransfer.experiments.alarm_limits import (
    MEASURES,
    LabelledRun,
    Limit,
    Rules,
    alarm_sounds,
    choose,
    run_of_record,
    sounds,
)
from siamtransfer.pretraining.collapse import CollapseWatch


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.9, 0.3, 0.2, 0.1, 0.8], 0.3), ([0.1, 0.9, 0.1, 0.1], 0.9), ([0.5, 0.6, 0.7], 0.7)],
)
def test_the_alarm_sounds_above_the_score_and_not_at_it(values: list[float], expected: float) -> None:
    assert Rules().score(values) == expected
    for limit, alarmed in ((expected, False), (expected + 1e-9, True)):
        watch = CollapseWatch(min_std=limit, min_rank_share=0.0)
        for step, value in enumerate(values):
            watch.check(step, {"health/std": value, "health/effective_rank": 2.0, "health/rank_share": 1.0})
        assert bool(watch.alarms) == alarmed


def runs_of(healthy: list[float], collapsed: list[float]) -> list[LabelledRun]:
    return [
        LabelledRun("x", "byol", label, {}, {"std": value, "rank share": value})
        for label, values in ((False, healthy), (True, collapsed))
        for value in values
    ]


def test_limits_of_runs_that_can_be_told_apart() -> None:
    choice = choose(runs_of([0.8, 0.6], [0.2, 0.4]), "std")
    assert choice.area == 1.0
    assert choice.without_false_alarms == Limit(0.5, 1.0, 0.0)
    assert (choice.youden.true_alarms, choice.youden.false_alarms) == (1.0, 0.0)


def test_limits_of_runs_that_overlap() -> None:
    choice = choose(runs_of([0.8, 0.7, 0.6, 0.3], [0.2, 0.4, 0.5]), "std")
    assert choice.area == pytest.approx(10 / 12)
    assert choice.without_false_alarms.value == 0.25
    assert choice.without_false_alarms.true_alarms == pytest.approx(1 / 3)
    assert choice.without_false_alarms.false_alarms == 0.0
    assert (choice.youden.true_alarms, choice.youden.false_alarms) == (1.0, 0.25)
    assert 0.5 < choice.youden.value <= 0.6


@pytest.mark.parametrize(
    ("std", "share", "alarmed"),
    [
        ([0.9, 0.3, 0.3, 0.3], [0.9] * 4, True),
        ([0.9] * 4, [0.1, 0.1, 0.1, 0.9], True),
        ([0.9, 0.3, 0.9, 0.3], [0.1, 0.9, 0.1, 0.9], True),
        ([0.3, 0.3, 0.9, 0.3], [0.9] * 4, False),
        ([0.4] * 4, [0.2] * 4, False),
    ],
)
def test_the_alarm_sounds_where_a_watch_would(std: list[float], share: list[float], alarmed: bool) -> None:
    run = LabelledRun("x", "byol", True, {"std": std, "rank share": share}, {})
    assert sounds(run, {"std": 0.4, "rank share": 0.2}) is alarmed
    watch = CollapseWatch(min_std=0.4, min_rank_share=0.2)
    for step, (one, other) in enumerate(zip(std, share, strict=True)):
        watch.check(step, {"health/std": one, "health/effective_rank": 2.0, "health/rank_share": other})
    assert bool(watch.alarms) is alarmed


@pytest.mark.parametrize(
    ("gain", "label"), [(-1.0, True), (4.0, True), (4.1, None), (6.0, None), (6.1, False), (20.0, False)]
)
def test_a_cell_is_labelled_by_what_it_gains_over_the_untrained_network(
    tmp_path: Path, gain: float, label: bool | None
) -> None:
    untrained = {"baseline/untrained/knn/k=20/T=0.07/top1": 12.0}
    record = record_of(small_suite(tmp_path)["slow"], 3, 12.0 + gain, **untrained)
    for number, key in enumerate(MEASURES.values()):
        record.curves[key] = [[23, 0.0], [50, 0.9], [75, 0.8 - number / 10], [100, 0.7]]
    run = run_of_record(record, "byol", Rules())
    assert (None if run is None else run.collapsed) == label
    if run is not None:
        assert run.scores == {"std": 0.9, "rank share": 0.9}
        assert (run.name, run.method) == ("rates/slow seed 3", "byol")
    assert run_of_record(record, "byol", Rules(first=75)) is None, "two checks are too few"
    del record.numbers["baseline/untrained/knn/k=20/T=0.07/top1"]
    assert run_of_record(record, "byol", Rules()) is None


@pytest.mark.parametrize(("method", "alarmed"), [("simsiam", True), ("moco", False)])
def test_alarms_are_those_of_the_limits_in_force(tmp_path: Path, method: str, alarmed: bool) -> None:
    suite = small_suite(tmp_path)
    experiment = dataclasses.replace(suite["slow"], settings={"method.name": method})
    record = record_of(suite["slow"], 0, 20.0, alarms=1)
    assert alarm_sounds(record, experiment), "what its run did, for it has no curves of health"
    for key, value in (("health/std", 0.3), ("health/rank_share", 0.5)):
        record.curves[key] = [[step, value] for step in range(3)]
    assert alarm_sounds(record, experiment) is alarmed
