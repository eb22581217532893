"""All pairs of the cells of a column, by the test that fits what is kept beside their records.

| kept | number | test |
|---|---|---|
| predicted labels | top1 | McNemar's, exact |
| predicted labels | mean_per_class | random signs of the samples' differences |
| predicted labels of several draws | the mean over draws | t of two crossed factors, draws and samples |
| scores of several labels | mAP | bootstrap over images |
| areas of segmented images | miou and others | bootstrap over images |
| a value a sample | its mean | random signs of the samples', or of their groups', differences |
| trials with the same seeds | any | Student's paired t over trials |

Cells without any of these are not tested, and never told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamtransfer.leaderboard.boards import Cell
from siamtransfer.leaderboard.columns import Column
from siamtransfer.leaderboard.settings import settings_of
from siamtransfer.metrics.average_precision import mean_average_precision, steps
from siamtransfer.metrics.intervals import paired_t_test
from siamtransfer.metrics.paired_bootstrap import resampled_mean_average_precisions
from siamtransfer.metrics.paired_matrices import (
    FLIPS,
    PairMatrix,
    bootstrap_matrix,
    mcnemar_matrix,
    sign_flip_matrix,
    two_way_matrix,
)
from siamtransfer.metrics.segmentation_intervals import resampled_scores
from siamtransfer.records.image_areas import ImageAreas
from siamtransfer.records.predictions import Predictions
from siamtransfer.records.sample_values import SampleValues

RESAMPLES, FEWEST_RESAMPLES = 1000, 200
"""Of the bootstrap of mAP and mIoU, for ten sets of predictions; of more fewer, down to what a standard error
needs (Efron and Tibshirani 1993, section 6.4)."""


@dataclass(frozen=True, eq=False)
class ColumnTests:
    """The tests of a column.

    Attributes:
        tested: the places of the cells that could be tested.
        matrix: of these, p-values and standardised differences; a positive one is the greater value, which
            of an error is the worse.
        name: of the test; empty where fewer than two cells could be tested.
    """

    tested: list[int]
    matrix: PairMatrix
    name: str


def column_tests(column: Column, cells: Sequence[Cell], *, seed: int, resamples: int | None) -> ColumnTests:
    """The tests of all pairs of the cells of a column; `resamples` R, or random signs, are drawn where a test
    draws (by default RESAMPLES and FLIPS)."""
    kept = [cell.measurement.sound() for cell in cells]
    settings = [
        [] if each is None else settings_of(each, column.task, column.metric)  # the same names in all
        for each in kept
    ]
    wanted = next((names for names in settings if names), [])
    tested = [place for place, names in enumerate(settings) if names and sorted(names) == sorted(wanted)]
    if len(tested) < 2:
        return _trials(column, cells)
    generator = np.random.default_rng(seed)
    first = kept[tested[0]]
    if isinstance(first, ImageAreas):
        areas = [each.settings[wanted[0]] for place in tested if isinstance(each := kept[place], ImageAreas)]
        metric = column.metric.rpartition("/")[2]
        drawn = resampled_scores(areas, resamples or _resamples(len(areas)), seed)[metric]
        observed = np.array([getattr(counts.scores(), metric) for counts in areas], np.float64)
        matrix = bootstrap_matrix(observed, drawn, len(areas[0]))
        return ColumnTests(tested, matrix, f"bootstrap over {len(areas[0])} images")
    if isinstance(first, SampleValues):
        values = [each for place in tested if isinstance(each := kept[place], SampleValues)]
        return _of_values(tested, values, wanted[0], generator, resamples or FLIPS)
    labelled = [each for place in tested if isinstance(each := kept[place], Predictions)]
    if labelled[0].labels.ndim == 2:
        labels, scores = labelled[0].labels, [each.settings[wanted[0]] for each in labelled]
        count = resamples or _resamples(len(scores))
        drawn = resampled_mean_average_precisions(labels, scores, count, generator)
        observed = np.array([mean_average_precision(each, labels, rule=steps) / 100 for each in scores])
        return ColumnTests(
            tested, bootstrap_matrix(observed, drawn, len(labels)), f"bootstrap over {len(labels)} images"
        )
    hits = np.stack([[each.labels == each.settings[name] for name in wanted] for each in labelled])
    if len(wanted) > 1 or column.metric.endswith("/mean"):
        name = f"t over {len(wanted)} draws and {hits.shape[2]} samples"
        return ColumnTests(tested, two_way_matrix(hits.astype(np.float64)), name)
    if column.metric.endswith("mean_per_class"):
        _, classes, counts = np.unique(labelled[0].labels, return_inverse=True, return_counts=True)
        weighted = hits[:, 0] / (len(counts) * counts[classes])
        matrix = sign_flip_matrix(weighted, generator, resamples or FLIPS)
        return ColumnTests(tested, matrix, f"random signs of {hits.shape[2]} samples")
    return ColumnTests(tested, mcnemar_matrix(hits[:, 0]), f"McNemar over {hits.shape[2]} samples")


def _resamples(sets: int) -> int:
    """R for so many sets of predictions."""
    return max(FEWEST_RESAMPLES, min(RESAMPLES, 10 * RESAMPLES // sets))


def _of_values(
    tested: list[int],
    kept: Sequence[SampleValues],
    setting: str,
    generator: np.random.Generator,
    flips: int,
) -> ColumnTests:
    """The test of means over samples, whose groups are what is drawn."""
    counts = ~np.isnan(kept[0].settings[setting])
    _, groups = np.unique(kept[0].numbered_groups[counts], return_inverse=True)
    sums = np.stack([np.bincount(groups, each.independent(setting)[counts]) for each in kept])
    what = "samples" if kept[0].groups is None else "groups"
    name = f"random signs of {sums.shape[1]} {what}"
    return ColumnTests(tested, sign_flip_matrix(sums, generator, flips), name)


def _trials(column: Column, cells: Sequence[Cell]) -> ColumnTests:
    """The paired t-test over trials with the same seeds, of detectors that were fine-tuned several times."""
    by_seed = [_values_by_seed(cell.measurement.record, column.metric) for cell in cells]
    seeds = next((sorted(values) for values in by_seed if len(values) > 1), [])
    tested = [place for place, values in enumerate(by_seed) if seeds and sorted(values) == seeds]
    count = len(tested)
    p_values, z = np.ones((count, count)), np.zeros((count, count))
    if count < 2:
        return ColumnTests([], PairMatrix(p_values[:0, :0], z[:0, :0]), "")
    scores = np.array([[by_seed[place][seed] for seed in seeds] for place in tested])
    for first in range(count):
        for second in range(first + 1, count):
            gain = scores[first] - scores[second]
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            if error == 0:
                continue  # trials that do not differ say nothing of how much others would
            p_values[first, second] = p_values[second, first] = paired_t_test(gain).p_value
            z[first, second], z[second, first] = gain.mean() / error, -gain.mean() / error
    return ColumnTests(tested, PairMatrix(p_values, z), f"Student's t over {len(seeds)} trials")


def _values_by_seed(record: dict[str, Any], metric: str) -> dict[int, float]:
    """The values of a metric, or of the one whose mean it is, in the trials of a record; empty where it has
    none."""
    trials = record["provenance"].get("trials")
    name = metric.removesuffix("/mean")
    values: dict[int, float] = {}
    for trial in trials if isinstance(trials, list) else []:
        metrics = trial.get("metrics") if isinstance(trial, dict) else None
        value = metrics.get(name) if isinstance(metrics, dict) else None
        if isinstance(value, int | float):
            values[int(trial.get("seed", len(values)))] = float(value)
    return values
