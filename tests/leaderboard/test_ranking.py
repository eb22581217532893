"""Ranks and groups: who is told apart by what, and how often equal ones are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.boards import SETTING, answers, sample_values, write, write_knn
from support.thorough import more

from siamtransfer.leaderboard import (
    BackboneId,
    Board,
    Cell,
    Column,
    Measurement,
    Ranking,
    board,
    collect,
    rank,
)
from siamtransfer.metrics.multiple_comparisons import holm
from siamtransfer.metrics.segmentation import PerImageCounts
from siamtransfer.records.image_areas import ImageAreas
from siamtransfer.records.predictions import Kept, Predictions
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError


class InMemory(Measurement):
    """A measurement whose predictions are not in a file."""

    def __init__(self, backbone: BackboneId, kept: Kept | None):
        super().__init__(Path("made.json"), {"task": "knn", "provenance": {}}, backbone, str(backbone))
        object.__setattr__(self, "own", kept)

    def kept(self) -> Kept | None:
        own: Kept | None = self.__dict__["own"]
        return own


def made_board(tasks: Sequence[np.ndarray], same_images: bool = False) -> Board:
    """A board of tasks, bool[B, Q] each: which samples the backbones answer right."""
    names = [BackboneId(name, "", name) for name in "abcdefgh"[: len(tasks[0])]]
    columns = [
        Column(
            "knn", f"knn/{SETTING}/top1", str(n), f"task {n}", {}, True, "%", "one" if same_images else str(n)
        )
        for n in range(len(tasks))
    ]
    cells = {}
    for column, hits in zip(columns, tasks, strict=True):
        labels = np.zeros(hits.shape[1], np.int64)
        for backbone, right in zip(names, hits, strict=True):
            kept = Predictions(labels, {SETTING: (~right).astype(np.int64)})
            cells[backbone, column] = Cell(InMemory(backbone, kept), 100 * float(right.mean()), None, None)
    return Board(names, columns, cells)


def told_apart(ranking: Ranking) -> bool:
    """Whether any two are called different, in a column or over all."""
    return any(pair.better for pair in ranking.pairs) or any(pair.better for pair in ranking.overall_pairs)


@pytest.mark.parametrize(("backbones", "runs"), [(2, 50), more(2, 3000), more(5, 600)])
def test_equal_backbones_are_called_different_in_at_most_one_of_twenty_runs(
    backbones: int, runs: int
) -> None:
    """20 tasks, whose answers go together; the bound is 5 % and three standard errors of the simulation."""
    errors = 0
    for run in range(runs):
        tasks = [answers(20 * run + n, *[0.7] * backbones, samples=300) for n in range(20)]
        errors += told_apart(rank(made_board(tasks)))
    assert errors / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


@pytest.mark.parametrize("runs", [60, more(500)])
def test_equal_backbones_on_the_same_images_by_many_evaluators(runs: int) -> None:
    """Eight columns of one set hang together; merged, they are one set for the test over all."""
    errors = 0
    for run in range(runs):
        right = answers(run, 0.7, 0.7, samples=300)
        flips = np.random.default_rng(run).random((8, *right.shape)) < 0.05
        errors += told_apart(rank(made_board(list(right ^ flips), same_images=True)))
    assert errors / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_equal_detectors_of_unknown_images_with_few_known_ones() -> None:
    """Other known images would change an AUROC as other unknown ones would; equal in 60 columns."""
    generator = np.random.default_rng(0)
    ours, theirs = BackboneId("a", "", "a"), BackboneId("b", "", "b")
    sides, cells = np.repeat([0, 1], [400, 40]), {}
    for number in range(60):
        column = Column("outside", f"outside/{number}/knn/auroc", "", str(number), {}, True, "%", str(number))
        for backbone in (ours, theirs):
            known, unknown = generator.normal(1, 1, (40, 1)), generator.normal(0, 1, 400)
            above = (known > unknown).astype(float)
            shares = np.concatenate([above.mean(axis=0), above.mean(axis=1)])
            kept = SampleValues(np.arange(440), {"knn": shares}, sides=sides)
            cells[backbone, column] = Cell(InMemory(backbone, kept), 100 * above.mean(), None, None)
    columns = list(dict.fromkeys(column for _, column in cells))
    pairs = rank(Board([ours, theirs], columns, cells), resamples=500).pairs
    p_values = np.array([pair.p_value for pair in pairs if pair.column is not None])
    assert len(p_values) == 60
    assert (p_values < 0.05).mean() <= 0.05 + 3 * (0.05 * 0.95 / 60) ** 0.5
    assert 0.3 < p_values.mean() < 0.7


def test_the_test_over_all_says_who_is_better_by_ranks() -> None:
    """b is better on 23 sets of 24, and a on one by so much that the mean of the differences is a's."""
    tasks = []
    for n in range(24):
        right = np.zeros((2, 4000), bool)
        right[1, : 18 + n // 3] = True
        right[0, 4000 - 16 :] = True
        tasks.append(right)
    tasks[0][0, 100:] = True
    ranking = rank(made_board(tasks))
    over_all = next(pair for pair in ranking.pairs if pair.column is None)
    assert over_all.difference > 0, "of a and b"
    assert str(over_all.better) == "b"


def test_a_clear_difference_is_found_in_one_column_and_small_ones_over_many() -> None:
    one = rank(made_board([answers(0, 0.6, 0.9, samples=300)]))
    assert [(place.backbone.label, place.groups) for place in one.overall] == [("b", "a"), ("a", "b")]
    assert one.overall_pairs[0].better == one.overall[0].backbone
    small = rank(made_board([answers(n, 0.70, 0.78, samples=250) for n in range(24)]))
    columns = [pair for pair in small.pairs if pair.column is not None]
    over_all = [pair for pair in small.pairs if pair.column is None]
    assert sum(pair.better is not None for pair in columns) < 24
    assert len(over_all) == 1
    assert over_all[0].better is not None
    assert over_all[0].better.label == "b"
    assert over_all[0].test == "signed ranks over 24 sets"


def test_the_tests_of_a_board_are_one_family() -> None:
    tasks = [answers(n, 0.6, 0.65, 0.75, samples=400) for n in range(7)]
    ranking = rank(made_board(tasks))
    assert len(ranking.pairs) == 7 * 3 + 3
    corrected = holm(np.array([pair.p_value for pair in ranking.pairs]))
    assert [pair.corrected for pair in ranking.pairs] == pytest.approx(corrected.tolist())
    for pair in ranking.pairs:
        assert (pair.better is not None) == (pair.corrected < 0.05)
    for right, pair in zip(tasks, ranking.pairs[:21:3], strict=True):
        only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        assert pair.p_value == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)
        assert pair.difference == pytest.approx(100 * (right[0].mean() - right[1].mean()))
    gains = [
        [(a & ~b).sum() - (b & ~a).sum() for a, b in [(right[0], right[2])]]
        / np.sqrt((right[0] ^ right[2]).sum())
        for right in tasks
    ]
    over_all = next(pair for pair in ranking.pairs if pair.column is None and pair.second.label == "c")
    assert over_all.p_value == pytest.approx(stats.wilcoxon(np.ravel(gains)).pvalue)


def test_letters_say_who_is_told_apart() -> None:
    ranking = rank(made_board([answers(n, 0.5, 0.58, 0.66, 0.9, samples=500) for n in range(3)]))
    assert any(pair.better for pair in ranking.pairs)
    assert not all(pair.better for pair in ranking.pairs)
    for column, places in ranking.columns.items():
        letters = {place.backbone: set(place.groups) for place in places}
        assert places[0].groups.startswith("a")
        for pair in (pair for pair in ranking.pairs if pair.column == column):
            assert bool(letters[pair.first] & letters[pair.second]) == (pair.better is None)
    overall = {place.backbone: set(place.groups) for place in ranking.overall}
    for both in ranking.overall_pairs:
        assert bool(overall[both.first] & overall[both.second]) == (both.better is None)


def test_who_is_better_here_and_worse_there_is_not_told_apart_over_all() -> None:
    tasks = [answers(0, 0.5, 0.9), answers(1, 0.9, 0.5)]
    ranking = rank(made_board(tasks))
    assert all(pair.better for pair in ranking.pairs)
    pair = ranking.overall_pairs[0]
    assert (pair.first_better, pair.second_better, pair.better) == (1, 1, None)
    assert [place.groups for place in ranking.overall] == ["a", "a"]


def test_mean_ranks() -> None:
    tasks = [answers(n, 0.5, 0.6, 0.7, samples=200) for n in range(4)]
    whole = made_board(tasks)
    ranking = rank(whole)
    expected = np.mean([stats.rankdata(-right.mean(axis=1)) for right in tasks], axis=0)
    assert {place.backbone.label: place.mean_rank for place in ranking.overall} == pytest.approx(
        dict(zip("abc", expected.tolist(), strict=True))
    )
    assert [place.mean_rank for place in ranking.overall] == sorted(expected)
    lonely = BackboneId("lonely", "", "lonely")
    fewer = {
        key: cell for key, cell in whole.cells.items() if key[0].label != "a" or key[1].title == "task 0"
    }
    ranking = rank(Board([*whole.backbones, lonely], whole.columns, fewer))
    last = ranking.overall[-1]
    assert (last.backbone, last.groups, last.columns) == (lonely, "", 0)
    assert np.isnan(last.mean_rank)
    assert {place.backbone.label: place.columns for place in ranking.overall} == {
        "a": 1,
        "b": 4,
        "c": 4,
        "lonely": 0,
    }


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    right = answers(0, 0.5, 0.8, samples=100)
    places = rank(made_board([np.stack([right[0], right[1], right[1], right[0]])])).columns
    assert [place.rank for place in next(iter(places.values()))] == [1.5, 1.5, 3.5, 3.5]


def test_without_predictions_there_is_a_rank_and_no_test(tmp_path: Path) -> None:
    right = answers(0, 0.5, 0.9, 0.6)
    for name, own, without in zip("abc", right, (False, False, True), strict=True):
        write_knn(tmp_path / f"{name}.json", name, own, without_predictions=without)
    ranking = rank(board(collect([tmp_path])))
    places = next(iter(ranking.columns.values()))
    assert [(place.backbone.label, place.rank, place.groups) for place in places] == [
        ("b", 1, "a"),
        ("c", 2, ""),
        ("a", 3, "b"),
    ]
    assert {place.backbone.label: place.groups for place in ranking.overall} == {"a": "b", "b": "a", "c": ""}
    assert "c cannot be tested, for no predictions are kept" in ranking.remarks[0]
    assert "what another seed of a probe" in ranking.remarks[-1]


KINDS = {
    "mean over classes": ("linear", "linear/mean_per_class", "random signs of 300 samples"),
    "draws": ("fewshot", "fewshot/k=1/C=1/top1/mean", "t over 3 draws and 300 samples"),
    "several labels": ("linear", "linear/mAP", "bootstrap over 300 images"),
    "areas": ("segmentation", "linear/miou", "bootstrap over 30 images"),
    "values": ("retrieval", "retrieval/hard/mAP", "random signs of 300 samples"),
    "errors": ("depth", "ridge/rmse", "random signs of 300 samples"),
}


def kept_of(kind: str, right: np.ndarray) -> Kept:
    """What an evaluator keeps of answers bool[Q]."""
    labels = np.arange(len(right)) % 5
    predicted = np.where(right, labels, labels + 1)
    noise = np.random.default_rng(0).random(len(right))
    if kind == "mean over classes":
        return Predictions(labels, {"linear": predicted})
    if kind == "draws":
        return Predictions(labels, {f"fewshot/k=1/C=1/repeat={n}": predicted for n in range(3)})
    if kind == "several labels":
        several = np.eye(5, dtype=np.int64)[labels]
        return Predictions(several, {"linear": several * right[:, None] + 0.8 * noise[:, None]})
    if kind == "areas":
        counts = PerImageCounts(2)
        for found in right.reshape(30, 10).sum(axis=1):
            counts.add(np.array([[found, 10 - found], [10 - found, found]]))
        return ImageAreas({"linear": counts})
    if kind == "values":
        return sample_values(hard=0.5 * right + 0.5 * noise)
    return sample_values(ridge__rmse=2.0 - right + noise)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_predictions_has_its_test(tmp_path: Path, kind: str) -> None:
    """b answers better than a, and c as a; no kind tells a and c apart."""
    task, metric, name = KINDS[kind]
    right = answers(2, 0.5, 0.85, 0.5, samples=300)
    for backbone, own in zip("abc", right, strict=True):
        value = {metric: 2 - float(own.mean()) if kind == "errors" else 100 * float(own.mean())}
        protocol: dict[str, Any] = {"metric": "mean_per_class"} if kind == "mean over classes" else {}
        write(tmp_path / f"{backbone}.json", task, value, kept_of(kind, own), backbone, **protocol)
    ranking = rank(board(collect([tmp_path])), resamples=300)
    assert {pair.test for pair in ranking.pairs} == {name}
    better = {f"{pair.first}{pair.second}": str(pair.better) for pair in ranking.pairs}
    assert better == {"ab": "b", "bc": "b", "ac": "None"}
    assert next(iter(ranking.columns.values()))[0].backbone.label == "b"


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2.0])
def test_alpha_is_a_chance(alpha: float) -> None:
    with pytest.raises(UserError, match="alpha"):
        rank(made_board([answers(0, 0.5, 0.6, samples=50)]), alpha)


def test_an_empty_board() -> None:
    ranking = rank(board([]))
    assert (ranking.columns, ranking.overall, ranking.pairs, ranking.remarks) == ({}, [], [], [])


def test_signed_ranks_need_six_sets() -> None:
    """Of five, the smallest p-value that there can be is 1/16."""
    tasks = [answers(n, 0.9, 0.5) for n in range(6)]
    for sets, tested in ((5, False), (6, True)):
        over_all = [pair for pair in rank(made_board(tasks[:sets])).pairs if pair.column is None]
        assert bool(over_all) == tested
