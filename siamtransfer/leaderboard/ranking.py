"""Ranks, with groups that cannot be told apart.

Every pair of backbones is tested in every column in which both have predictions (pair_tests.py), and once
over all columns: by the signed-rank test of Wilcoxon (1945) over their standardised differences, as Demšar
(2006, "Statistical comparisons of classifiers over multiple data sets", section 3.1.3) recommends for two
classifiers on many data sets. Columns that score the same images are one data set there; their differences
are averaged.

All these tests of a board are one family, corrected by Holm (1979): where no two backbones differ in
anything, the chance that any two are called different, in any column or over all, is at most alpha. That
needs no assumption on how the tests depend on each other.

Over all columns a backbone is told to be better than another where it is clearly better in a column or more
and clearly worse in none, or where the test over all columns says so. Letters stand for groups (Piepho 2004):
two backbones share one if, and only if, they are not told apart.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import stats

from siamtransfer.leaderboard.boards import Board, Cell
from siamtransfer.leaderboard.columns import Column, sets_of_images
from siamtransfer.leaderboard.measurement import BackboneId
from siamtransfer.leaderboard.pair_tests import column_tests
from siamtransfer.metrics.multiple_comparisons import group_letters, holm
from siamtransfer.utils.checks import above
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few

FEWEST_SETS = 6  # of fewer, no signed-rank test has a p-value below 0.05
OTHER_SEEDS = (
    "each cell is one run: the tests ask whether other images would rank two backbones alike, and do not "
    "know what another seed of a probe or of the pretraining would change"
)


@dataclass(frozen=True)
class PairTest:
    """The test of two backbones, in a column or over all.

    Attributes:
        column: None over all columns.
        first, second: the first has the label that sorts first.
        difference: of the values, the first minus the second, in the unit of the column; over all columns the
            mean of the standardised differences, positive where the first is better on the mean.
        p_value: of this test alone, two-sided.
        corrected: for all tests of the board.
        test: its name.
        better: the one that is clearly better; None where they are not told apart.
    """

    column: Column | None
    first: BackboneId
    second: BackboneId
    difference: float
    p_value: float
    corrected: float
    test: str
    better: BackboneId | None


class Place(NamedTuple):
    """The place of a backbone in a column: its value with the ends of the record's 95 % interval, its rank
    from 1 (of equal values the mean), and the letters of its groups; none where no test was possible."""

    backbone: BackboneId
    value: float
    low: float | None
    high: float | None
    rank: float
    groups: str


class OverallPlace(NamedTuple):
    """The place of a backbone over all columns: its mean rank, the letters of its groups (none where no test
    was possible), and the number of columns in which it stands beside others. One that stands beside none is
    last, with the mean rank NaN."""

    backbone: BackboneId
    mean_rank: float
    groups: str
    columns: int


@dataclass(frozen=True)
class OverallPair:
    """Two backbones over all columns.

    Attributes:
        first, second: in the order of their mean ranks.
        columns: number of columns that both have.
        first_better, second_better: in how many of them one is clearly better.
        test: over all columns; None where there are fewer than FEWEST_SETS sets.
        better: the one that is told to be better; None where they are not told apart.
    """

    first: BackboneId
    second: BackboneId
    columns: int
    first_better: int
    second_better: int
    test: PairTest | None
    better: BackboneId | None


@dataclass(frozen=True, eq=False)
class Ranking:
    """The ranks of a board.

    Attributes:
        columns: the places in each column, the best first.
        overall: the places over all columns, the best first.
        pairs: every test that was made, in columns and over all.
        overall_pairs: all pairs over all columns.
        alpha: the chance of calling any two equal ones different.
        remarks: what is not tested, and what the tests do not know.
    """

    columns: dict[Column, list[Place]]
    overall: list[OverallPlace]
    pairs: list[PairTest]
    overall_pairs: list[OverallPair]
    alpha: float
    remarks: list[str] = field(default_factory=list)


class _Raw(NamedTuple):
    """A test before its correction; z is positive where the first is better."""

    column: Column | None
    first: BackboneId
    second: BackboneId
    difference: float
    z: float
    p_value: float
    test: str


def rank(board: Board, alpha: float = 0.05, seed: int = 0, resamples: int | None = None) -> Ranking:
    """Ranks the backbones of a board; `resamples` are those of tests that draw (see pair_tests.py).

    Raises:
        UserError: alpha is not between 0 and 1.
    """
    above("alpha", alpha, 0)
    if alpha >= 1:
        raise UserError(f"alpha must be below 1, not {alpha:g}")
    raw: list[_Raw] = []
    remarks: list[str] = []
    untested: list[str] = []
    for column in board.columns:
        raw += _test_column(column, board.of(column), seed, resamples, remarks, untested)
    if untested:
        remarks.append(
            "nobody is told apart by numbers from whose computation no predictions are kept: "
            + first_few(untested)
        )
    raw += _over_all(raw, sets_of_images(board.columns))
    pairs = _correct(raw, alpha)
    if pairs:
        remarks.append(OTHER_SEEDS)
    by_column: dict[Column | None, list[PairTest]] = defaultdict(list)
    for pair in pairs:
        by_column[pair.column].append(pair)
    columns = {column: _places(column, board.of(column), by_column[column]) for column in board.columns}
    overall, overall_pairs = _overall(board, columns, pairs)
    return Ranking(columns, overall, pairs, overall_pairs, alpha, remarks)


def _test_column(
    column: Column,
    cells: dict[BackboneId, Cell],
    seed: int,
    resamples: int | None,
    remarks: list[str],
    untested: list[str],
) -> list[_Raw]:
    """The tests of all pairs of a column. Adds a remark on cells that could not be tested, or the column to
    `untested` where none could."""
    if len(cells) < 2:
        return []
    backbones, own = list(cells), list(cells.values())
    tests = column_tests(column, own, seed=seed, resamples=resamples)
    if not tests.tested:
        untested.append(column.title)
    elif absent := [str(backbones[place]) for place in range(len(own)) if place not in tests.tested]:
        remarks.append(
            f"{column.title}: {', '.join(absent)} cannot be tested, for no predictions are kept from which "
            "this number was computed"
        )
    sign = 1 if column.higher_is_better else -1
    return [
        _Raw(
            column,
            backbones[tests.tested[i]],
            backbones[tests.tested[j]],
            own[tests.tested[i]].value - own[tests.tested[j]].value,
            sign * float(tests.matrix.z[i, j]),
            float(tests.matrix.p_values[i, j]),
            tests.name,
        )
        for i, j in combinations(range(len(tests.tested)), 2)
    ]


def _over_all(raw: Sequence[_Raw], sets: dict[Column, int]) -> list[_Raw]:
    """The signed-rank tests of all pairs with enough `sets` of images in common."""
    by_pair: dict[tuple[BackboneId, BackboneId], dict[int, list[float]]] = defaultdict(dict)
    for test in raw:
        assert test.column is not None
        by_pair[test.first, test.second].setdefault(sets[test.column], []).append(test.z)
    found = []
    for (first, second), of_sets in by_pair.items():
        gains = np.array([np.mean(z) for z in of_sets.values()])
        if len(gains) < FEWEST_SETS:
            continue
        p_value = float(stats.wilcoxon(gains).pvalue) if gains.any() else 1.0
        name = f"signed ranks over {len(gains)} sets"
        told = gains[gains != 0]
        balance = float(
            np.sign(told) @ stats.rankdata(abs(told))
        )  # as the test has it: one gain cannot turn it
        found.append(_Raw(None, first, second, float(gains.mean()), balance, p_value, name))
    return found


def _correct(raw: Sequence[_Raw], alpha: float) -> list[PairTest]:
    corrected = holm(np.array([test.p_value for test in raw]))
    return [
        PairTest(
            test.column,
            test.first,
            test.second,
            test.difference,
            test.p_value,
            float(each),
            test.test,
            (test.first if test.z > 0 else test.second) if each < alpha and test.z else None,
        )
        for test, each in zip(raw, corrected, strict=True)
    ]


def _places(column: Column, cells: dict[BackboneId, Cell], tests: Sequence[PairTest]) -> list[Place]:
    """The places of a column with these tests, the best first."""
    values = np.array([cell.value for cell in cells.values()])
    ranks = stats.rankdata(-values if column.higher_is_better else values)
    order = sorted(range(len(ranks)), key=lambda place: ranks[place])
    backbones = [list(cells)[place] for place in order]
    tested = {backbone for pair in tests for backbone in (pair.first, pair.second)}
    letters = dict(zip(backbones, _letters(backbones, tests), strict=True))
    return [
        Place(
            backbone,
            cells[backbone].value,
            cells[backbone].low,
            cells[backbone].high,
            float(ranks[place]),
            letters[backbone] if backbone in tested else "",
        )
        for place, backbone in zip(order, backbones, strict=True)
    ]


def _letters(backbones: Sequence[BackboneId], pairs: Sequence[PairTest | OverallPair]) -> list[str]:
    """The letters of backbones in the order of their ranks."""
    place = {backbone: number for number, backbone in enumerate(backbones)}
    different = np.zeros((len(backbones),) * 2, bool)
    for pair in pairs:
        if pair.better is not None:
            i, j = place[pair.first], place[pair.second]
            different[i, j] = different[j, i] = True
    return group_letters(different)


def _overall(
    board: Board, columns: dict[Column, list[Place]], pairs: Sequence[PairTest]
) -> tuple[list[OverallPlace], list[OverallPair]]:
    """The places and the pairs over all columns.

    The mean rank is 1 plus, for every other backbone, the share of the columns of both in which the other has
    the better rank (equal ranks count half). Where all backbones have all columns, that is the mean of the
    ranks; where not, nobody gains by standing beside few.
    """
    ranks = {column: {place.backbone: place.rank for place in places} for column, places in columns.items()}
    mean_rank = dict.fromkeys(board.backbones, 1.0)
    common: dict[tuple[BackboneId, BackboneId], int] = {}
    for first, second in combinations(board.backbones, 2):
        both = [own for own in ranks.values() if first in own and second in own]
        common[first, second] = common[second, first] = len(both)
        ahead = [0.5 * (np.sign(own[second] - own[first]) + 1) for own in both]
        share = float(np.mean(ahead)) if both else 0.5
        mean_rank[first] += 1 - share
        mean_rank[second] += share
    counted = {
        backbone: sum(backbone in own and len(own) > 1 for own in ranks.values())
        for backbone in board.backbones
    }
    order = sorted(
        board.backbones,
        key=lambda backbone: (not counted[backbone], mean_rank[backbone], backbone.label),
    )
    by_pair: dict[frozenset[BackboneId], list[PairTest]] = defaultdict(list)
    for pair in pairs:
        by_pair[frozenset((pair.first, pair.second))].append(pair)
    overall_pairs = [
        _overall_pair(first, second, common[first, second], by_pair[frozenset((first, second))])
        for first, second in combinations(order, 2)
    ]
    letters = _letters(order, overall_pairs)
    tested = {backbone for pair in pairs for backbone in (pair.first, pair.second)}
    places = [
        OverallPlace(backbone, mean_rank[backbone], groups if backbone in tested else "", counted[backbone])
        if counted[backbone]
        else OverallPlace(backbone, math.nan, "", 0)
        for backbone, groups in zip(order, letters, strict=True)
    ]
    return places, overall_pairs


def _overall_pair(
    first: BackboneId, second: BackboneId, columns: int, tests: Sequence[PairTest]
) -> OverallPair:
    """What the tests of two backbones say together."""
    over_all = next((test for test in tests if test.column is None), None)
    clear = [test.better for test in tests if test.column is not None]
    wins, losses = clear.count(first), clear.count(second)
    better = None if over_all is None else over_all.better
    if better is None and (wins == 0) != (losses == 0):
        better = first if wins else second
    return OverallPair(first, second, columns, wins, losses, over_all, better)
