"""Records of cells: kept in order, found by settings, and what the seeds say together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.experiment_records import record_of, small_suite, write_small_suite

from siamtransfer.experiments.comparison import against_of, differences, mean_of
from siamtransfer.experiments.records import Records
from siamtransfer.experiments.suites import TEST, ExperimentSuite, read_suite
from siamtransfer.utils.errors import UserError


def test_records_come_back_in_the_order_of_the_suite(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    records = Records(tmp_path / "kept", suite)
    cells = [record_of(suite[name], seed, 20.0 + seed) for name in ("slow", "fast") for seed in (1, 0)]
    for cell in cells:
        records.add([cell])
    again = Records(tmp_path / "kept", suite)
    assert [again.get(suite["slow"], seed) for seed in (0, 1)] == [cells[1], cells[0]]
    lines = (tmp_path / "kept" / "rates.jsonl").read_text().splitlines()
    names = [line[: line.index('"seed"') + 9] for line in lines]
    assert names == [
        f'{{"experiment": "rates/{name}", "seed": {seed}' for name in ("fast", "slow") for seed in (0, 1)
    ]


def test_a_record_of_other_settings_is_none(tmp_path: Path) -> None:
    folder = write_small_suite(tmp_path)
    suite = read_suite(folder)
    Records(tmp_path, suite).add([record_of(suite["slow"], 0, 20.0), record_of(suite["fast"], 0, 21.0)])
    (folder / "slow.yaml").write_text((folder / "slow.yaml").read_text().replace("0.01", "0.02"))
    suite = read_suite(folder)
    assert Records(tmp_path, suite).get(suite["slow"], 0) is None
    assert Records(tmp_path, suite).all_of(suite["slow"]) == {}
    assert Records(tmp_path, suite).get(suite["fast"], 0) is not None


def test_a_record_of_another_measurement_is_none(tmp_path: Path) -> None:
    folder = write_small_suite(tmp_path)
    text = (folder / "suite.yaml").read_text()

    def with_score(commands: str) -> ExperimentSuite:
        (folder / "suite.yaml").write_text(
            f"{text}scores: [{{name: AP, metric: AP, commands: {commands}}}]\n"
        )
        return read_suite(folder)

    suite = with_score("[detection --steps 400]")
    Records(tmp_path, suite).add([record_of(suite["slow"], 0, 20.0, AP=7.0)])
    assert Records(tmp_path, suite).get(suite["slow"], 0) is not None
    suite = with_score("[detection --steps 800]")
    assert Records(tmp_path, suite).get(suite["slow"], 0) is None


def test_records_that_another_program_writes_stay(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    own, other = Records(tmp_path / "kept", suite), Records(tmp_path / "kept", suite)
    other.add([record_of(suite["fast"], 0, 21.0)])
    own.add([record_of(suite["slow"], 0, 20.0)])
    for records in (own, Records(tmp_path / "kept", suite)):
        assert records.get(suite["fast"], 0) is not None
        assert records.get(suite["slow"], 0) is not None


def test_records_of_a_removed_experiment_go(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    gone = replace(record_of(suite["slow"], 0, 20.0), experiment="rates/gone")
    records = Records(tmp_path / "kept", suite)
    records.add([gone, record_of(suite["slow"], 0, 20.0)])
    assert "gone" not in (tmp_path / "kept" / "rates.jsonl").read_text()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    Records(tmp_path, suite).add([record_of(suite["slow"], seed, 20.0) for seed in (0, 1)])
    file = tmp_path / "rates.jsonl"
    good = file.read_text()
    file.write_text(good[:-30])
    with pytest.raises(UserError, match=r"rates\.jsonl, line 2"):
        Records(tmp_path, suite)
    file.write_text(good.replace('"alarms"', '"bells"'))
    with pytest.raises(UserError, match="something else than records of experiments"):
        Records(tmp_path, suite)


def test_means_and_differences_are_students_over_the_shared_seeds(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    records = Records(tmp_path, suite)
    slow, fast = {0: 20.0, 1: 23.0, 2: 21.5, 3: 99.0}, {0: 22.0, 1: 24.0, 2: 24.5}
    records.add([record_of(suite["slow"], seed, value) for seed, value in slow.items()])
    records.add([record_of(suite["fast"], seed, value) for seed, value in fast.items()])
    mean = mean_of(records.all_of(suite["fast"]))
    assert mean is not None
    assert mean.half is not None
    low, high = stats.t.interval(0.95, 2, np.mean([*fast.values()]), stats.sem([*fast.values()]))
    assert (mean.value - mean.half, mean.value + mean.half) == pytest.approx((low, high))
    assert mean.seeds == 3
    (name, gap), *others = differences(suite, records).items()
    assert not others
    expected = stats.ttest_rel([fast[seed] for seed in (0, 1, 2)], [slow[seed] for seed in (0, 1, 2)])
    assert (name, gap.against) == ("fast", "slow")
    assert gap.test.difference == pytest.approx(2.0)
    assert gap.corrected == gap.test.p_value == pytest.approx(expected.pvalue)
    assert not gap.clear


def test_one_seed_has_no_interval_and_no_difference(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    records = Records(tmp_path, suite)
    records.add([record_of(suite["slow"], 0, 20.0), record_of(suite["fast"], 0, 30.0)])
    mean = mean_of(records.all_of(suite["slow"]))
    assert mean is not None
    assert (mean.value, mean.half, mean.seeds) == (20.0, None, 1)
    assert differences(suite, records) == {}
    assert mean_of({}, TEST) is None


def test_an_experiment_may_be_compared_with_another_than_the_baseline(tmp_path: Path) -> None:
    folder = write_small_suite(tmp_path)
    text = (folder / "fast.yaml").read_text()
    (folder / "medium.yaml").write_text(
        text.replace("0.5}", "0.2}").replace("# Source", "# Against:   fast\n# Source")
    )
    suite = read_suite(folder)
    assert [against_of(suite, one) for one in suite.experiments] == ["slow", "fast", None]
    records = Records(tmp_path, suite)
    for name, start in (("slow", 20.0), ("fast", 25.0), ("medium", 24.0)):
        records.add([record_of(suite[name], seed, start + seed + 0.1 * (seed == 1)) for seed in range(3)])
    gaps = differences(suite, records)
    assert gaps["medium"].test.difference == pytest.approx(-1.0)
    assert gaps["fast"].test.difference == pytest.approx(5.0)
    assert gaps["fast"].clear


def test_two_records_of_a_cell_differ_in_what_differs(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    first = record_of(suite["slow"], 0, 20.0)
    assert first.differences(replace(first, seconds=9.0, commit="x")) == []
    second = replace(first, curves={"loss": [[1, -0.1], [2, -0.2]]}, numbers=first.numbers | {TEST: 20.5})
    assert first.differences(second) == [TEST, "loss"]
