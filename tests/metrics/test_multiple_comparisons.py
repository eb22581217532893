"""Holm's correction against statsmodels' numbers, and letters against their definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from siamtransfer.metrics.multiple_comparisons import group_letters, holm


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.012, 0.0004, 0.2, 0.012, 0.9, 0.03, 0.0101], [0.0606, 0.0028, 0.4, 0.0606, 0.9, 0.09, 0.0606]),
    ],
)
def test_holm_as_statsmodels_0_15_has_it(p_values: list[float], corrected: list[float]) -> None:
    assert holm(np.array(p_values)) == pytest.approx(corrected)


def test_holm_at_its_ends() -> None:
    assert holm(np.zeros(0)).shape == (0,)
    assert holm(np.array([0.3])).tolist() == [0.3]
    assert holm(np.array([0.0, 1.0, 1.0])).tolist() == [0.0, 1.0, 1.0]
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            holm(np.array([0.5, wrong]))


def test_holm_rejects_more_than_bonferroni_and_never_less() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        p_values = generator.random(12) ** 3
        assert (holm(p_values) <= (12 * p_values).clip(max=1) + 1e-15).all()
        assert (holm(p_values) >= p_values).all()


def relations(count: int) -> list[np.ndarray]:
    """Every symmetric relation of `count` things."""
    pairs = list(itertools.combinations(range(count), 2))
    found = []
    for chosen in itertools.product([False, True], repeat=len(pairs)):
        different = np.zeros((count, count), bool)
        for (first, second), apart in zip(pairs, chosen, strict=True):
            different[first, second] = different[second, first] = apart
        found.append(different)
    return found


def test_two_share_a_letter_if_and_only_if_they_are_not_told_apart() -> None:
    """All 1024 relations of five things, and some of twelve."""
    generator = np.random.default_rng(1)
    larger = [np.triu(generator.random((12, 12)) < share, 1) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for different in relations(5) + [each | each.T for each in larger]:
        letters = group_letters(different)
        for first, second in itertools.combinations(range(len(different)), 2):
            assert bool(set(letters[first]) & set(letters[second])) != different[first, second]
        groups = [{n for n, own in enumerate(letters) if letter in own} for letter in set("".join(letters))]
        assert not any(one < other for one in groups for other in groups), (
            "a group within another says nothing"
        )


def test_letters_are_in_the_order_of_the_ranks() -> None:
    different = np.zeros((4, 4), bool)
    for first, second in ((0, 2), (0, 3), (1, 3)):
        different[first, second] = different[second, first] = True
    assert group_letters(different) == ["a", "ab", "bc", "c"]
    assert group_letters(~np.eye(3, dtype=bool)) == ["a", "b", "c"]
    assert group_letters(np.zeros((3, 3), bool)) == ["a", "a", "a"]
    assert group_letters(np.zeros((0, 0), bool)) == []
    assert group_letters(~np.eye(54, dtype=bool))[51:] == ["Z", "(53)", "(54)"]
