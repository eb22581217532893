"""scripts/collapse_limits.py: a run's score is what the alarm says of it; labelled runs give limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import collapse_limits
import pytest

from siamtransfer.pretraining.collapse import CollapseWatch
from siamtransfer.utils.errors import UserError


def write_run(
    folder: Path,
    std: Sequence[float],
    share: Sequence[float],
    *,
    knn: float | None = None,
    method: str = "byol",
) -> Path:
    folder.mkdir(parents=True)
    rows: list[dict[str, float]] = [
        {"step": 50 * (number + 1), "health/std": one, "health/rank_share": other}
        for number, (one, other) in enumerate(zip(std, share, strict=True))
    ]
    if knn is not None:
        rows.insert(0, {"step": 0, "baseline/untrained/knn/k=20/T=0.07/top1": 12.0})
        rows.append({"step": rows[-1]["step"], "knn/k=20/T=0.07/top1": knn})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps({"method": {"name": method}}))
    return folder


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.9, 0.3, 0.2, 0.1, 0.8], 0.3), ([0.1, 0.9, 0.1, 0.1], 0.9), ([0.5, 0.6, 0.7], 0.7)],
)
def test_the_alarm_sounds_above_the_score_and_not_at_it(values: list[float], expected: float) -> None:
    assert collapse_limits.score(values, 3) == expected
    for limit, sounds in ((expected, False), (expected + 1e-9, True)):
        watch = CollapseWatch(min_std=limit, min_rank_share=0.0)
        for step, value in enumerate(values):
            watch.check(step, {"health/std": value, "health/effective_rank": 2.0, "health/rank_share": 1.0})
        assert bool(watch.alarms) == sounds


def runs_of(healthy: list[float], collapsed: list[float]) -> list[collapse_limits.LabelledRun]:
    return [
        collapse_limits.LabelledRun(Path("x"), "byol", label, {"std": value, "rank share": value})
        for label, values in ((False, healthy), (True, collapsed))
        for value in values
    ]


def test_limits_of_runs_that_can_be_told_apart() -> None:
    choice = collapse_limits.choose(runs_of([0.8, 0.6], [0.2, 0.4]), "std")
    assert choice.area == 1.0
    assert choice.without_false_alarms == collapse_limits.Limit(0.5, 1.0, 0.0)
    assert (choice.youden.true_alarms, choice.youden.false_alarms) == (1.0, 0.0)


def test_limits_of_runs_that_overlap() -> None:
    choice = collapse_limits.choose(runs_of([0.8, 0.7, 0.6, 0.3], [0.2, 0.4, 0.5]), "std")
    assert choice.area == pytest.approx(10 / 12)
    assert choice.without_false_alarms.value == 0.25
    assert choice.without_false_alarms.true_alarms == pytest.approx(1 / 3)
    assert choice.without_false_alarms.false_alarms == 0.0
    assert (choice.youden.true_alarms, choice.youden.false_alarms) == (1.0, 0.25)
    assert 0.5 < choice.youden.value <= 0.6


def test_the_command_reads_journals_and_labels_by_knn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = [0.9] * 5, [0.9, 0.2, 0.2, 0.2, 0.2]
    folders = [
        write_run(tmp_path / "learns", good, good, knn=30.0),
        write_run(tmp_path / "constant", bad, bad, knn=10.0),
        write_run(tmp_path / "unclear", bad, bad, knn=13.0),
    ]
    caplog.set_level("INFO")
    picture = tmp_path / "limits.png"
    record = collapse_limits.main(["--runs", *map(str, folders), "--picture", str(picture)])
    assert record["metrics"] == pytest.approx({"std": 0.55, "rank share": 0.55})
    assert record["provenance"] == {"runs": 2}
    assert "1 runs left out" in caplog.text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_records_of_experiments_are_read(tmp_path: Path) -> None:
    file = tmp_path / "suite.jsonl"
    file.write_text(
        "".join(
            json.dumps(
                {
                    "experiment": "suite/one",
                    "seed": seed,
                    "numbers": {collapse_limits.HELD_OUT: accuracy},
                    "curves": {
                        key: [[10, 0.0], *([50 + step, value] for step in range(4))]
                        for key in collapse_limits.MEASURES.values()
                    },
                }
            )
            + "\n"
            for seed, (accuracy, value) in enumerate([(30.0, 0.8), (11.0, 0.2), (13.0, 0.1)])
        )
    )
    record = collapse_limits.main(["--records", str(file), "--untrained", "12"])
    assert record["metrics"] == pytest.approx({"std": 0.5, "rank share": 0.5})
    with pytest.raises(UserError, match="--records needs --untrained"):
        collapse_limits.main(["--records", str(file)])


def test_labels_may_be_given(tmp_path: Path) -> None:
    healthy = write_run(tmp_path / "healthy", [0.7] * 4, [0.6] * 4)
    collapsed = write_run(tmp_path / "collapsed", [0.1] * 4, [0.9] * 4)
    limits = collapse_limits.main(["--healthy", str(healthy), "--collapsed", str(collapsed)])["metrics"]
    assert limits["std"] == pytest.approx(0.4)
    assert limits["rank share"] == pytest.approx(0.6), "no collapsed run is below: the lowest healthy one"


def test_runs_that_cannot_be_used(tmp_path: Path) -> None:
    short = write_run(tmp_path / "short", [0.5], [0.5])
    whole = write_run(tmp_path / "whole", [0.5] * 3, [0.5] * 3)
    with pytest.raises(UserError, match="1 checks are fewer than the 3 that an alarm needs; train longer"):
        collapse_limits.main(["--healthy", str(short)])
    with pytest.raises(UserError, match="none of 1 runs is collapsed: a limit needs runs of both kinds"):
        collapse_limits.main(["--healthy", str(whole)])
    with pytest.raises(UserError, match="has no rows: is"):
        collapse_limits.main(["--healthy", str(tmp_path / "none")])
