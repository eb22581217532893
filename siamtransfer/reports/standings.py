"""How the backbones of a board stand: who is best in each column, who ties, and what beats the baselines.

All statements rest on the tests of the ranking. Two kinds of baselines have no predictions. A guess, the
most frequent class for every image, is compared by the 95 % interval of a score. Baselines that a record of
kNN holds as numbers are told apart where they differ by more than the root of 2 times half of that interval,
as two scores with intervals of that width do that share no image; scores of the same images scatter less.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from siamtransfer.leaderboard import BackboneId, Board, Cell, Column, Measurement, PairTest, Place
from siamtransfer.records.predictions import Predictions
from siamtransfer.reports.naming import task_names
from siamtransfer.reports.sources import Sources

Outcome = Literal["better", "alike", "worse", "untested"]
PIXELS, UNTRAINED = "pixels", "random:"
"""How sources of baselines are called."""
RECORDED = {"raw pixels": "baseline/pixels/", "untrained networks": "baseline/untrained/"}
"""Beginnings of the numbers by which a record holds its own baselines."""


@dataclass(frozen=True)
class Leader:
    """The top of a column.

    Attributes:
        best: of the backbones that are no baselines.
        tied: others that cannot be told apart from it, baselines among them.
        untested: others of which no test says anything, for predictions are missing.
    """

    column: Column
    best: Place
    tied: list[Place]
    untested: list[Place]


@dataclass(frozen=True)
class Against:
    """A backbone against a baseline: the columns in which it is better, alike, worse, or not tested."""

    backbone: BackboneId
    baseline: str
    columns: dict[Outcome, list[Column]]


class Standings:
    """The statements of a page about its board.

    Attributes:
        contenders: the backbones that are judged: those that are no baselines, or all where there are none
            else, best overall first.
        baselines: raw pixels and untrained networks.
        only_baselines: whether the contenders are baselines, for there is nothing else.
        columns: those with a place for a contender.
        names: of all columns.
    """

    def __init__(self, sources: Sources):
        self.board: Board = sources.board
        self.ranking = sources.ranking
        self._sources = {one.backbone: one.source for one in sources.measurements}
        baselines = {one.backbone for one in sources.measurements if is_baseline(one)}
        marked = [one for one in self.board.backbones if one in baselines]
        others = [one for one in self.board.backbones if one not in marked]
        order = {entry[0]: place for place, entry in enumerate(self.ranking.overall)}
        by_rank = lambda one: (order.get(one, len(order)), one.label)  # noqa: E731
        self.only_baselines = not others
        self.contenders = sorted(others or marked, key=by_rank)
        self.baselines = sorted(marked, key=by_rank) if others else []
        self.columns = [column for column in self.board.columns if self.places(column, self.contenders)]
        self.names = task_names(self.board.columns)
        self.guesses = {column: self._guess(column) for column in self.board.columns}

    @functools.cached_property
    def _tests(self) -> dict[tuple[Column | None, frozenset[BackboneId]], PairTest]:
        pairs = self.ranking.pairs
        return {(pair.column, frozenset((pair.first, pair.second))): pair for pair in pairs}

    def outcome(self, mine: BackboneId, theirs: BackboneId, column: Column) -> Outcome:
        """How one backbone stands to another in a column."""
        test = self._tests.get((column, frozenset((mine, theirs))))
        if test is None:
            return "untested"
        if test.better is None:
            return "alike"
        return "better" if test.better == mine else "worse"

    def is_top(self, one: BackboneId, column: Column) -> bool:
        """Whether a backbone is the first of a column, or cannot be told apart from it, by a test."""
        ordered = self.ranking.columns.get(column) or []
        if len(ordered) < 2:
            return False
        first = ordered[0].backbone
        if one != first:
            return self.outcome(one, first, column) == "alike"
        return any(self.outcome(first, place.backbone, column) != "untested" for place in ordered[1:])

    def places(self, column: Column, among: list[BackboneId]) -> list[Place]:
        """The places of some backbones in a column, best first."""
        return [place for place in self.ranking.columns.get(column, ()) if place.backbone in among]

    def cell(self, backbone: BackboneId, column: Column) -> Cell | None:
        """The number of a backbone in a column."""
        return self.board.cells.get((backbone, column))

    def leader(self, column: Column) -> Leader:
        """The top of a column that has a place for a contender."""
        best = self.places(column, self.contenders)[0]
        others = [place for place in self.ranking.columns[column] if place is not best]
        outcomes = [self.outcome(best.backbone, place.backbone, column) for place in others]
        return Leader(
            column,
            best,
            [place for place, outcome in zip(others, outcomes, strict=True) if outcome == "alike"],
            [place for place, outcome in zip(others, outcomes, strict=True) if outcome == "untested"],
        )

    def against(self, backbone: BackboneId) -> list[Against]:
        """A backbone against each baseline, and against a guess."""
        found = [
            Against(backbone, name, self._outcomes(backbone, members))
            for name, members in self._kinds().items()
        ]
        for name in RECORDED:
            if name not in {one.baseline for one in found}:
                found.append(Against(backbone, name, self._outcomes_of_recorded(backbone, name)))
        found.append(Against(backbone, "a guess", self._outcomes_of_guess(backbone)))
        return [one for one in found if any(one.columns.values())]

    def _kinds(self) -> dict[str, list[BackboneId]]:
        """The baselines by what they are called in a sentence."""
        kinds: dict[str, list[BackboneId]] = {}
        for baseline in self.baselines:
            name = "raw pixels" if self._sources[baseline] == PIXELS else "untrained networks"
            kinds.setdefault(name, []).append(baseline)
        return kinds

    def _outcomes(self, backbone: BackboneId, baselines: list[BackboneId]) -> dict[Outcome, list[Column]]:
        """Against the best of the baselines in each column."""
        outcomes: dict[Outcome, list[Column]] = {outcome: [] for outcome in get_args(Outcome)}
        for column in self.columns:
            mine, theirs = self.places(column, [backbone]), self.places(column, baselines)
            if mine and theirs:
                outcomes[self.outcome(backbone, theirs[0].backbone, column)].append(column)
        return outcomes

    def _outcomes_of_guess(self, backbone: BackboneId) -> dict[Outcome, list[Column]]:
        outcomes: dict[Outcome, list[Column]] = {outcome: [] for outcome in get_args(Outcome)}
        for column in self.columns:
            cell, guess = self.cell(backbone, column), self.guesses[column]
            if cell is None or guess is None or cell.low is None or cell.high is None:
                continue
            better, worse = cell.low > guess, cell.high < guess
            outcomes["better" if better else "worse" if worse else "alike"].append(column)
        return outcomes

    def recorded(self, backbone: BackboneId, column: Column) -> dict[str, float]:
        """What the record of a number says of baselines, by what they are called."""
        cell = self.cell(backbone, column)
        metrics = cell.measurement.metrics if cell is not None else {}
        found = {name: metrics.get(f"{prefix}{column.metric}") for name, prefix in RECORDED.items()}
        return {name: float(value) for name, value in found.items() if value is not None}

    def _outcomes_of_recorded(self, backbone: BackboneId, name: str) -> dict[Outcome, list[Column]]:
        outcomes: dict[Outcome, list[Column]] = {outcome: [] for outcome in get_args(Outcome)}
        for column in self.columns:
            cell, value = self.cell(backbone, column), self.recorded(backbone, column).get(name)
            if cell is None or value is None or cell.low is None or cell.high is None:
                continue
            gain = (cell.value - value) * (1 if column.higher_is_better else -1)
            clear = abs(gain) > math.sqrt(2) * (cell.high - cell.low) / 2
            outcomes[("better" if gain > 0 else "worse") if clear else "alike"].append(column)
        return outcomes

    def _guess(self, column: Column) -> float | None:
        """What the most frequent class scores in a column of accuracies, in percent; None for others."""
        cells = [self.cell(backbone, column) for backbone in self.board.backbones]
        cell = next((cell for cell in cells if cell is not None), None)
        last = [word for word in column.metric.split("/") if word in ("top1", "mean_per_class")]
        kept = cell.measurement.sound() if cell is not None and last else None
        if not isinstance(kept, Predictions) or kept.labels.ndim != 1:
            return None
        counts = np.unique(kept.labels, return_counts=True)[1]
        return float(100 * (counts.max() / counts.sum() if last[-1] == "top1" else 1 / len(counts)))


def is_baseline(measurement: Measurement) -> bool:
    """Whether a measurement is one of raw pixels or of a network without training."""
    return measurement.source == PIXELS or measurement.source.startswith(UNTRAINED)
