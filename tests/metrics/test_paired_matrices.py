"""Tests of all pairs: against those of one pair, against SciPy, by enumeration, and how often they err."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from siamtransfer.metrics.paired_bootstrap import mcnemar, resampled_mean_average_precisions
from siamtransfer.metrics.paired_matrices import (
    _cochran_cox,
    bootstrap_matrix,
    mcnemar_matrix,
    sign_flip_matrix,
    two_way_matrix,
)


def test_mcnemar_of_many_is_that_of_each_pair() -> None:
    generator = np.random.default_rng(0)
    hits = generator.random((6, 300)) < np.linspace(0.6, 0.8, 6)[:, None]
    hits[5] = hits[4]
    found = mcnemar_matrix(hits)
    for i, j in itertools.product(range(6), repeat=2):
        only_i, only_j = int((hits[i] & ~hits[j]).sum()), int((hits[j] & ~hits[i]).sum())
        assert found.p_values[i, j] == pytest.approx(mcnemar(only_i, only_j), rel=1e-9)
        assert found.z[i, j] == pytest.approx((only_i - only_j) / max(1, only_i + only_j) ** 0.5)
    assert found.p_values[4, 5] == 1


def test_random_signs_against_all_signs() -> None:
    values = np.random.default_rng(3).normal(size=(3, 9)).round(1)
    found = sign_flip_matrix(values, np.random.default_rng(0), 20_000)
    signs = np.array(list(itertools.product((-1, 1), repeat=9)))
    for i, j in itertools.combinations(range(3), 2):
        gain = values[i] - values[j]
        exact = (np.abs(signs @ gain) >= np.abs(gain.sum()) - 1e-9).mean()
        assert found.p_values[i, j] == found.p_values[j, i]
        assert found.p_values[i, j] == pytest.approx(exact, abs=4 * (exact / 20_000) ** 0.5)
        assert np.sign(found.z[i, j]) == np.sign(gain.sum()) == -np.sign(found.z[j, i])


def test_random_signs_beyond_the_draws() -> None:
    """Where no draw is as extreme: of differences of one size the p-value is a binomial's."""
    for right, wrong in ((12, 0), (260, 140)):
        gain = np.repeat([1.0, -1.0], [right, wrong])
        found = sign_flip_matrix(np.stack([gain, 0 * gain]), np.random.default_rng(0), 300).p_values[0, 1]
        exact = stats.binomtest(right, right + wrong).pvalue
        assert 0.9 * exact < found < 1.2 * exact, "the draws alone would say 1 / 301"
    same = sign_flip_matrix(np.stack([gain, gain]), np.random.default_rng(0), 300)
    assert same.p_values[0, 1] == 1
    assert same.z[0, 1] == 0


def test_two_factors_are_the_t_test_where_one_of_them_does_nothing() -> None:
    generator = np.random.default_rng(5)
    of_samples = np.repeat(generator.normal(size=(2, 1, 40)), 4, axis=1)
    found = two_way_matrix(of_samples)
    assert found.p_values[0, 1] == pytest.approx(stats.ttest_rel(*of_samples[:, 0]).pvalue)
    of_draws = np.repeat(generator.normal(size=(2, 6, 1)), 30, axis=2)
    assert two_way_matrix(of_draws).p_values[0, 1] == pytest.approx(
        stats.ttest_rel(*of_draws[:, :, 0]).pvalue
    )
    noise = generator.normal(size=(2, 1, 30))
    both = of_draws + noise - noise.mean(axis=2, keepdims=True)
    assert two_way_matrix(both).p_values[0, 1] > two_way_matrix(of_draws).p_values[0, 1]
    one = generator.normal(size=(2, 1, 25))
    assert two_way_matrix(one).p_values[0, 1] == pytest.approx(stats.ttest_rel(*one[:, 0]).pvalue)
    assert two_way_matrix(np.stack([one[0], one[0]])).p_values[0, 1] == 1


def test_two_factors_that_both_do_something_are_between_the_two_t_tests() -> None:
    """Of equal variances the p-value is at the mean of the two critical values."""
    found = _cochran_cox(np.array([[2.5]]), np.full((2, 1, 1), 0.5), np.array([4, 39]))[0, 0]
    assert stats.t.isf(found / 2, 4) / 2 + stats.t.isf(found / 2, 39) / 2 == pytest.approx(2.5, rel=1e-5)
    assert 2 * stats.t.sf(2.5, 39) < found < 2 * stats.t.sf(2.5, 4)


def test_the_bootstrap_of_a_mean_is_the_t_test() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(size=(3, 60)) + np.array([[0], [0.2], [0.9]])
    drawn = np.stack([values[:, generator.integers(0, 60, 60)].mean(axis=1) for _ in range(4000)], axis=1)
    found = bootstrap_matrix(values.mean(axis=1), drawn, 60)
    for i, j in itertools.combinations(range(3), 2):
        expected = stats.ttest_rel(values[i], values[j])
        assert found.z[i, j] == pytest.approx(expected.statistic, rel=0.05)
        assert found.p_values[i, j] == pytest.approx(expected.pvalue, rel=0.5)


def test_the_bootstrap_where_nothing_is_drawn() -> None:
    drawn = np.array([[0.5, 0.6, np.nan], [0.5, 0.6, 0.7]])
    assert bootstrap_matrix(np.array([0.5, 0.5]), drawn, 10).p_values.tolist() == [[1, 1], [1, 1]]
    assert bootstrap_matrix(np.array([0.5, 0.9]), drawn, 1).p_values[0, 1] == 1, "one image tells nothing"


def small_samples(kind: str, generator: np.random.Generator) -> float:
    """The p-value for two that are equally good on few samples, whose answers go together."""
    shared = generator.normal(size=(1, 40))
    scores = shared + generator.normal(size=(2, 40))
    if kind == "mcnemar":
        return float(mcnemar_matrix(scores > 0).p_values[0, 1])
    if kind == "signs":
        return float(sign_flip_matrix(scores[:, :12], generator, 200).p_values[0, 1])
    if kind == "two factors":
        draws = generator.normal(size=(2, 5, 1)) * 0.3
        return float(two_way_matrix(draws + scores[:, None]).p_values[0, 1])
    labels = (generator.random((40, 2)) < 0.4).astype(np.int64)
    labels[:2] = 1
    ranked = [labels + generator.normal(size=(40, 2)) for _ in range(2)]
    drawn = resampled_mean_average_precisions(labels, ranked, 100, generator)
    observed = np.array(
        [np.mean([_precision(labels[:, c], each[:, c]) for c in range(2)]) for each in ranked]
    )
    return float(bootstrap_matrix(observed, drawn, 40).p_values[0, 1])


def _precision(labels: np.ndarray, scores: np.ndarray) -> float:
    ranked = labels[np.argsort(-scores)]
    return float((ranked * ranked.cumsum() / np.arange(1, len(ranked) + 1)).sum() / ranked.sum())


@pytest.mark.parametrize("kind", ["mcnemar", "signs", "two factors", "mAP"])
def test_equal_ones_are_called_different_in_one_of_twenty(kind: str) -> None:
    """Pairs that are equally good; the bound is 5 % and three standard errors."""
    generator = np.random.default_rng(11)
    runs = {"mAP": 150, "two factors": 80}.get(kind, 400)
    errors = np.mean([small_samples(kind, generator) < 0.05 for _ in range(runs)])
    assert errors <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
