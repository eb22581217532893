"""The label-free rules: what each chooses, whom the guard rules out, and how a choice is judged."""

from __future__ import annotations

import math

import pytest

from siamtransfer.evaluation.diagnostics.selection import choose, score_rules, validity

NUMBERS = ("std", "rankme", "lidar", "alpha_req", "alignment", "uniformity")
SWEEP = [
    {f"{name}/h": value for name, value in zip(NUMBERS, values, strict=True)}
    for values in (
        (0.9, 50.0, 20.0, 1.9, 0.5, -2.0),
        (0.8, 40.0, 30.0, 1.2, 0.7, -2.5),
        (0.7, 30.0, 10.0, 0.9, 0.1, -1.0),
    )
]


def chosen(sweep: list[dict[str, float]]) -> dict[str, int | None]:
    return {rule: choose(scores) for rule, scores in score_rules(sweep, "h").items()}


def test_each_rule_chooses_by_its_own_number() -> None:
    assert chosen(SWEEP) == {"rankme": 0, "lidar": 1, "alpha_req": 2, "alignment+uniformity": 1}


def test_a_collapsed_checkpoint_is_never_chosen() -> None:
    """Its alignment is perfect, and its α may be anything."""
    collapsed = SWEEP[1] | {"std/h": 0.19, "rankme/h": 99.0, "alpha_req/h": 1.0, "alignment/h": -9.0}
    assert chosen([SWEEP[0], collapsed, SWEEP[2]]) == {
        "rankme": 0, "lidar": 0, "alpha_req": 2, "alignment+uniformity": 0,
    }  # fmt: skip
    assert set(chosen([one | {"std/h": 0.1} for one in SWEEP]).values()) == {None}


def test_a_number_that_is_not_finite_is_not_chosen() -> None:
    assert chosen([SWEEP[0], SWEEP[1], SWEEP[2] | {"alpha_req/h": math.nan}])["alpha_req"] == 1


def test_rules_that_lack_a_number_are_left_out() -> None:
    without = [{name: value for name, value in one.items() if "alignment" not in name} for one in SWEEP]
    assert list(score_rules(without, "h")) == ["rankme", "lidar", "alpha_req"]
    assert score_rules(SWEEP, "z") == {}
    assert list(score_rules([SWEEP[0], without[1]], "h")) == ["rankme", "lidar", "alpha_req"]


def test_a_rule_is_judged_by_ranks_and_regret() -> None:
    accuracies = [60.0, 62.0, 50.0, 55.0]
    assert validity(accuracies, accuracies) == {"kendall": 1, "spearman": 1, "regret": 0}
    assert validity([-a for a in accuracies], accuracies) == pytest.approx(
        {"kendall": -1, "spearman": -1, "regret": 12}
    )
    # The two best change places: one of six pairs is wrong; ρ = 1 - 6 (1 + 1) / (4 · 15).
    assert validity([4, 3, 1, 2], accuracies) == pytest.approx(
        {"kendall": 4 / 6, "spearman": 1 - 12 / 60, "regret": 2}
    )


def test_a_judgement_without_a_basis_is_not_a_number() -> None:
    for scores, accuracies in (([1, 1], [50, 60]), ([1, 2], [50, 50])):
        assert math.isnan(validity(scores, accuracies)["kendall"])
    assert math.isnan(validity([-math.inf, -math.inf], [50, 60])["regret"])
    assert choose([1.0, 1.0]) == 0
