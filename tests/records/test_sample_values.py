"""Values of samples as files, and two measurements compared by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from siamtransfer.programs.compare import CompareOptions, compare_records
from siamtransfer.records.comparison import compare
from siamtransfer.records.likeness import truth_key
from siamtransfer.records.predictions import Predictions, read_kept
from siamtransfer.records.result import Result
from siamtransfer.records.sample_values import SampleValues, sample_difference
from siamtransfer.utils.errors import UserError

SAMPLES = np.arange(40) * 3


def values(gain: float = 0.0, seed: int = 0) -> np.ndarray:
    """Of 40 samples, from 0 to 1."""
    draw = np.random.default_rng(seed)
    return np.clip(draw.random(40) * 0.5 + gain, 0, 1)


def result(gain: float, seed: int = 0, samples: np.ndarray = SAMPLES) -> Result:
    kept = SampleValues(samples, {"heads": values(gain, seed)[: len(samples)]})
    return Result("attention", {}, {"mass": 0.6}, {"images_fingerprint": "f"}, kept)


def test_values_are_read_back_equal(tmp_path: Path) -> None:
    kept = SampleValues(SAMPLES, {"heads": values(), "a/b": values(0.1)})
    kept.write(tmp_path / "a.npz")
    read = read_kept(tmp_path / "a.npz")
    assert isinstance(read, SampleValues)
    assert len(read) == 40
    assert np.array_equal(read.samples, SAMPLES)
    assert list(read.settings) == ["heads", "a/b"]
    assert all(np.array_equal(read.settings[name], array) for name, array in kept.settings.items())
    read.write(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("samples", "array", "why"),
    [
        (SAMPLES, np.full(40, np.nan), "not all finite and from 0"),
        (SAMPLES, np.full(40, 1.5), "not all from 0 to 1"),
        (SAMPLES, np.zeros(39), r"heads/values\[39\]"),
        (SAMPLES, np.zeros(40, np.int64), "floating-point numbers"),
        (np.zeros(40, np.int64), np.zeros(40), "a sample twice"),
        (SAMPLES.astype(float), np.zeros(40), "of type float64"),
        (SAMPLES[:0], np.zeros(0), "no values"),
    ],
)
def test_other_values_are_refused(samples: np.ndarray, array: np.ndarray, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SampleValues(samples, {"heads": array})


def test_two_sides_have_the_variance_of_a_difference_of_aurocs(tmp_path: Path) -> None:
    """That of DeLong et al. 1988, here from the 0, 0.5 and 1 of all pairs."""
    generator = np.random.default_rng(0)
    known, unknown = generator.normal(0.5, 1, (2, 30)).round(1), generator.normal(0, 1, (2, 70)).round(1)
    pairs = np.sign(known[:, :, None] - unknown[:, None, :]) / 2 + 0.5
    by_known, by_unknown = pairs.mean(axis=2), pairs.mean(axis=1)
    shares = np.concatenate([by_unknown, by_known], axis=1)
    sides = np.repeat([0, 1], [70, 30])
    kept = SampleValues(np.arange(100), {"a": shares[0], "b": shares[1]}, sides=sides)
    kept.write(tmp_path / "a.npz")
    read = read_kept(tmp_path / "a.npz")
    assert isinstance(read, SampleValues)
    assert read.independent("a").mean() == pytest.approx(pairs[0].mean())
    gain = read.independent("a") - read.independent("b")
    expected = sum((part[0] - part[1]).var() / part.shape[1] for part in (by_known, by_unknown))
    assert gain.var() / 100 == pytest.approx(expected)
    other = SampleValues(np.arange(100), kept.settings, sides=1 - sides)
    assert (
        sample_difference(kept, other)
        == "their samples belong to other sides, such as known and unknown images"
    )
    assert truth_key(kept, "a") != truth_key(other, "a")
    with pytest.raises(ValueError, match=r"holds sides\[99\] of type int64"):
        SampleValues(np.arange(100), kept.settings, sides=sides[1:])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"heads/values": values()})
    with pytest.raises(UserError, match=r"a\.npz holds no values of samples"):
        read_kept(tmp_path / "a.npz")


def test_a_constant_gain_has_an_interval_of_no_width() -> None:
    found = compare(result(0.0), result(0.25))
    difference = found.differences["mean"]
    assert difference.value == pytest.approx(25)
    assert (difference.low, difference.high) == pytest.approx((25, 25))
    assert found.better == 1
    assert "mean" in found.verdict() and "McNemar" not in found.verdict()


def test_the_interval_is_that_of_the_mean_of_differences() -> None:
    first, second = values(0.0), values(0.05, seed=1)
    difference = compare(result(0.0), result(0.05, seed=1)).differences["mean"]
    gain = 100 * (second - first)
    half = 1.96 * gain.std(ddof=1) / np.sqrt(40)
    assert difference.value == pytest.approx(gain.mean())
    assert difference.low == pytest.approx(gain.mean() - half, abs=0.1 * half)
    assert difference.high == pytest.approx(gain.mean() + half, abs=0.1 * half)


def test_unlike_samples_and_kinds_are_refused() -> None:
    with pytest.raises(UserError, match="row 0 is sample 0 in the first and 1 in the second"):
        compare(result(0.0), result(0.1, samples=SAMPLES + 1))
    with pytest.raises(UserError, match="they scored 40 and 30 samples"):
        compare(result(0.0), result(0.1, samples=SAMPLES[:30]))
    labels = Predictions(np.zeros(40, np.int64), {"heads": np.zeros(40, np.int64)})
    other = Result("attention", {}, {"mass": 0.6}, {"images_fingerprint": "f"}, labels)
    with pytest.raises(UserError, match="one of them has values of samples and the other has labels"):
        compare(result(0.0), other)


def test_the_program_compares_two_records(tmp_path: Path) -> None:
    result(0.0).save(tmp_path / "a.json")
    result(0.2).save(tmp_path / "b.json")
    record = compare_records(CompareOptions(str(tmp_path / "a.json"), str(tmp_path / "b.json")))
    assert record["metrics"]["compare/heads/mean/difference"] == pytest.approx(20)
    assert record["protocol"]["test"] is None
    assert record["protocol"]["interval"] == "paired percentile bootstrap over samples, 95 %"


def test_samples_that_do_not_count_are_left_out(tmp_path: Path) -> None:
    """Of 40 queries every fourth has no answer; the others are compared as if it were not there."""
    answered = np.arange(40) % 4 != 0
    first, second = np.where(answered, values(), np.nan), np.where(answered, values(0.1, seed=1), np.nan)
    kept = [SampleValues(SAMPLES, {"easy": array, "hard": values()}) for array in (first, second)]
    kept[0].write(tmp_path / "a.npz")
    read = read_kept(tmp_path / "a.npz")
    assert isinstance(read, SampleValues)
    assert np.array_equal(read.settings["easy"], first, equal_nan=True)
    results = [Result("retrieval", {}, {}, {}, each) for each in kept]
    shorter = [
        Result("retrieval", {}, {}, {}, SampleValues(SAMPLES[answered], {"easy": array[answered]}))
        for array in (first, second)
    ]
    assert compare(*results, setting="easy") == compare(*shorter)
    assert (kept[0].counted("easy"), kept[0].counted("hard")) == (30, 40)
    other = SampleValues(SAMPLES, {"easy": values()})
    with pytest.raises(UserError, match="sample 0 counts in only one of them for easy"):
        compare(results[0], Result("retrieval", {}, {}, {}, other))


def error_result(scale: float, errors: frozenset[str] = frozenset({"rmse"})) -> Result:
    kept = SampleValues(SAMPLES, {"rmse": scale * (1 + values())}, errors)
    return Result("depth", {}, {}, {"images_fingerprint": "f"}, kept)


def test_of_errors_the_lower_is_better_in_their_own_unit(tmp_path: Path) -> None:
    found = compare(error_result(2.0), error_result(1.0))
    difference = found.differences["mean"]
    assert difference.value == pytest.approx(-float((1 + values()).mean()))
    assert found.better == 1
    verdict = found.verdict()
    assert f"B is better by {-difference.value:.4f}, 95 % interval {-difference.high:.4f}" in verdict
    assert "points" not in verdict and "%)" not in verdict
    assert compare(error_result(1.0), error_result(2.0)).better == 0


def test_errors_are_read_back_as_errors(tmp_path: Path) -> None:
    kept = SampleValues(SAMPLES, {"rmse": 3 * values(), "delta1": values()}, frozenset({"rmse"}))
    kept.write(tmp_path / "a.npz")
    read = read_kept(tmp_path / "a.npz")
    assert isinstance(read, SampleValues)
    assert read.errors == {"rmse"} and list(read.settings) == ["rmse", "delta1"]
    with pytest.raises(ValueError, match="rmse/errors that are not all finite and from 0"):
        SampleValues(SAMPLES, {"rmse": -values()}, frozenset({"rmse"}))
    with pytest.raises(ValueError, match="not all from 0 to 1"):
        SampleValues(SAMPLES, {"rmse": 3 * values()})


def grouped(gains: list[float], groups: list[int]) -> tuple[Result, Result]:
    """Two results whose samples differ by these gains."""
    samples, numbers, values = np.arange(len(gains)), np.array(groups), np.full(len(gains), 0.4)
    return tuple(  # type: ignore[return-value]
        Result("video", {}, {}, {}, SampleValues(samples, {"J": array}, groups=numbers))
        for array in (values, values + gains)
    )


def test_samples_of_a_group_are_resampled_together(tmp_path: Path) -> None:
    """Two groups, of 3 samples with a gain of 0.1 and of 1 with none. A resample has twice the first (10
    points, in a quarter of them), both (7.5) or twice the second (0), so the interval is from 0 to 10."""
    first, second = grouped([0.1, 0.1, 0.1, 0.0], [5, 5, 5, 7])
    difference = compare(first, second).differences["mean"]
    assert difference.value == pytest.approx(7.5)
    assert (difference.low, difference.high) == pytest.approx((0, 10))
    second.save(tmp_path / "b.json")
    assert compare(first, tmp_path / "b.json").differences["mean"] == difference


def test_groups_that_do_not_fit_are_refused() -> None:
    first, second = grouped([0.1, 0.1], [1, 1])
    with pytest.raises(UserError, match=r"one group .* no interval"):
        compare(first, second)
    with pytest.raises(UserError, match="belong to other groups"):
        compare(first, grouped([0.1, 0.1], [1, 2])[1])
    with pytest.raises(ValueError, match=r"holds groups\[1\]"):
        SampleValues(np.arange(2), {"J": np.zeros(2)}, groups=np.zeros(1, np.int64))
