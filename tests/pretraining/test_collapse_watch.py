"""The watch that raises the alarm: which numbers show a collapse, when it speaks, and how it is resumed."""

from __future__ import annotations

import json

import pytest

from siamtransfer.pretraining.collapse import CollapseWatch


def health(std: float, share: float) -> dict[str, float]:
    return {"health/std": std, "health/effective_rank": 2.0, "health/rank_share": share}


GOOD, BAD = health(0.9, 0.7), health(0.3, 0.7)


@pytest.mark.parametrize(
    ("std", "share", "collapsed"),
    [(0.9, 0.7, False), (0.41, 0.43, False), (0.39, 0.7, True), (0.9, 0.41, True)],
)
def test_either_measure_shows_a_collapse(std: float, share: float, collapsed: bool) -> None:
    watch = CollapseWatch(patience=1)
    assert (watch.check(10, health(std, share)) is not None) == collapsed


def test_the_alarm_wants_bad_checks_in_a_row_and_good_ones_before_it_is_repeated() -> None:
    watch, alarms = CollapseWatch(), []
    story = [BAD, BAD, GOOD, BAD, BAD, BAD, BAD, GOOD, BAD, BAD, BAD, GOOD, GOOD, GOOD, BAD, BAD, BAD]
    for step, numbers in enumerate(story):
        text = watch.check(step, numbers)
        if text is not None:
            alarms.append(step)
            assert f"COLLAPSE at step {step}" in text
            assert "optim.lr" in text
    assert alarms == watch.alarms == [5, 16]


def test_the_watch_goes_on_from_what_a_checkpoint_holds() -> None:
    story = [BAD, BAD, GOOD, BAD, BAD, BAD, BAD]
    for cut in range(len(story)):
        watch = CollapseWatch()
        for step, numbers in enumerate(story[:cut]):
            watch.check(step, numbers)
        watch = CollapseWatch(**json.loads(json.dumps(vars(watch))))
        for step, numbers in enumerate(story[cut:], cut):
            watch.check(step, numbers)
        assert watch.alarms == [5]
