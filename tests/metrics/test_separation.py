"""AUROC, AUPR and FPR95 against scikit-learn and by hand, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from siamtransfer.metrics import separation
from siamtransfer.metrics.separation import separation_metrics, shares_above

NAMES = ("auroc", "aupr_in", "aupr_out", "fpr95")


def scores(generator: np.random.Generator, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Of 300 known and 170 unknown images; few digits make many equal scores."""
    return (generator.normal(shift, 1, size).round(digits) for shift, size in ((1, 300), (0, 170)))  # type: ignore[return-value]


@pytest.mark.parametrize("digits", [0, 1, 9])
@pytest.mark.parametrize("thresholds", [1024, 64])
def test_numbers_equal_scikit_learns(digits: int, thresholds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separation, "THRESHOLDS", thresholds)
    known, unknown = scores(np.random.default_rng(digits), digits)
    ours = separation_metrics(known, unknown, resamples=50)
    both, truth = np.concatenate([known, unknown]), np.repeat([1, 0], (300, 170))
    assert ours["auroc"] == pytest.approx(100 * roc_auc_score(truth, both))
    assert ours["aupr_in"] == pytest.approx(100 * average_precision_score(truth, both))
    assert ours["aupr_out"] == pytest.approx(100 * average_precision_score(1 - truth, -both))
    fpr, tpr, _ = roc_curve(truth, both, drop_intermediate=False)
    assert ours["fpr95"] == pytest.approx(100 * fpr[np.argmax(tpr >= 0.95)])
    for name in NAMES:
        assert ours[f"{name}/ci95_low"] < ours[name] < ours[f"{name}/ci95_high"]
    assert 100 * shares_above(known, unknown).mean() == pytest.approx(ours["auroc"])


def test_few_thresholds_move_an_interval_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    known, unknown = scores(np.random.default_rng(1), 9)
    fine = separation_metrics(known, unknown, resamples=2000)
    monkeypatch.setattr(separation, "THRESHOLDS", 100)
    coarse = separation_metrics(known, unknown, resamples=2000)
    for name in NAMES:
        for end in ("ci95_low", "ci95_high"):
            assert coarse[f"{name}/{end}"] == pytest.approx(fine[f"{name}/{end}"], abs=1.5)


def test_intervals_hold_the_truth() -> None:
    """The AUROC of two normal distributions one deviation apart is Φ(1/√2), 76.02 %."""
    generator, held = np.random.default_rng(2), 0
    for _ in range(60):
        ours = separation_metrics(generator.normal(1, 1, 80), generator.normal(0, 1, 80), resamples=200)
        held += ours["auroc/ci95_low"] <= 76.02 <= ours["auroc/ci95_high"]
    assert held >= 52


def test_extremes() -> None:
    apart = separation_metrics(np.array([3.0, 4]), np.array([1.0, 2]), resamples=20)
    assert [apart[name] for name in NAMES] == [100, 100, 100, 0]
    swapped = separation_metrics(np.array([1.0, 2]), np.array([3.0, 4]), resamples=20)
    assert (swapped["auroc"], swapped["fpr95"]) == (0, 100)
    same = separation_metrics(np.ones(3), np.ones(1), resamples=20)
    assert [same[name] for name in NAMES] == [50, 75, 25, 100]
    assert shares_above(np.array([1.0, 2, 3]), np.array([2.0])).tolist() == [0.5]


@pytest.mark.parametrize(
    ("known", "unknown"),
    [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([1.0], [np.inf]), ([[1.0]], [1.0])],
)
def test_what_is_no_score_is_refused(known: list[float], unknown: list[float]) -> None:
    with pytest.raises(ValueError, match="finite, and there are some of both"):
        separation_metrics(np.array(known), np.array(unknown))
