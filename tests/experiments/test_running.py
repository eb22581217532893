"""A suite runs side by side, goes on where it was stopped, and gives the same numbers a second time."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from support import paths
from support.experiment_records import write_small_suite

from siamtransfer.experiments.cell import Cell, curves_of, score
from siamtransfer.experiments.records import Records
from siamtransfer.experiments.run import Places, Wanted, measure_again, measure_missing
from siamtransfer.experiments.suites import HELD_OUT, TEST, Score, read_suite
from siamtransfer.utils.errors import UserError


def test_a_suite_is_measured_once_goes_on_and_repeats_itself(tmp_path: Path) -> None:
    folder = write_small_suite(tmp_path)
    suite = read_suite(folder)
    places = Places(tmp_path / "runs", tmp_path / "kept", tmp_path / "page.md")
    wanted = Wanted(seeds=2, at_once=2)
    records = measure_missing(suite, [suite["slow"]], places, wanted)
    first, second = (records.get(suite["slow"], seed) for seed in (0, 1))
    assert first is not None
    assert second is not None
    assert 0 < first.numbers[TEST] < 40
    assert 0 < first.numbers[HELD_OUT] < 40
    assert [step for step, _ in first.curves["loss"]] == [1, 2]
    stamp = (tmp_path / "kept" / "rates.jsonl").stat().st_mtime_ns
    measure_missing(suite, [suite["slow"]], places, wanted)
    assert (tmp_path / "kept" / "rates.jsonl").stat().st_mtime_ns == stamp, "nothing is measured twice"

    numbers = {**second.numbers, TEST: second.numbers[TEST] + 0.05}
    records.add([dataclasses.replace(second, numbers=numbers)])
    with pytest.raises(UserError, match=r"differs: rates/slow seed 1 in knn/k=20/T=0.07/top1$"):
        measure_again(suite, 2, places, at_once=2)


def test_a_cell_that_fails_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    folder = write_small_suite(tmp_path)
    (folder / "fast.yaml").write_text((folder / "fast.yaml").read_text() + "data: {root: nowhere}\n")
    suite = read_suite(folder)
    places = Places(tmp_path / "runs", tmp_path / "kept", tmp_path / "page.md")
    with pytest.raises(UserError, match=r"1 cells? of rates have failed: rates/fast seed 0: .*root"):
        measure_missing(suite, suite.experiments, places, Wanted(seeds=1, at_once=2))
    assert Records(places.records, suite).get(suite["slow"], 0) is not None


def test_two_programs_do_not_measure_one_suite_in_one_folder(tmp_path: Path) -> None:
    suite = read_suite(write_small_suite(tmp_path))
    places = Places(tmp_path / "runs", tmp_path / "kept", tmp_path / "page.md")
    code = "import sys; from siamtransfer.utils.run_lock import RunLock; lock = RunLock(sys.argv[1])"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; print(flush=True); input()", str(places.runs / "rates")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=paths.ROOT,
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UserError, match=r"folder of the suite's runs .*rates is in use by .*--runs"):
            measure_missing(suite, suite.experiments, places, Wanted(seeds=1))
        other.stdin.write(b"\n")


def test_without_records_nothing_is_measured_again(tmp_path: Path) -> None:
    suite = read_suite(write_small_suite(tmp_path))
    places = Places(tmp_path / "runs", tmp_path / "kept", tmp_path / "page.md")
    with pytest.raises(UserError, match=r"rates\.jsonl has no record of rates"):
        measure_again(suite, 1, places)


def test_curves_are_the_numbers_that_tell_how_a_run_goes() -> None:
    rows = [
        {"step": 5, "loss": -0.5, "lr": 0.1, "images_per_second": 700.0},
        {"step": 5, "health/std": 0.9, "gradient/positive": None},
        {"step": 10, "loss": -0.7, "knn/k=20/T=0.07/top1": 30.0},
    ]
    assert curves_of(rows) == {
        "loss": [[5, -0.5], [10, -0.7]],
        "health/std": [[5, 0.9]],
        "knn/k=20/T=0.07/top1": [[10, 30.0]],
    }


def test_a_further_score_is_a_number_of_a_program(tmp_path: Path) -> None:
    suite = read_suite(write_small_suite(tmp_path))
    cell = Cell(suite["slow"], 0, tmp_path)
    cell.folder.mkdir(parents=True)
    words = (
        "knn",
        "pixels",
        "--data.name",
        "fashion-scenes",
        "--data.size",
        "32",
        "--data.count",
        "40",
        "--k",
        "5",
    )
    of = Score("pixels", (words,), "knn/k=5/T=0.07/top1")
    assert 5 < score(of, cell) < 20
    with pytest.raises(UserError, match="pixels: knn gives no AP; its numbers are knn/"):
        score(dataclasses.replace(of, metric="AP"), cell)
