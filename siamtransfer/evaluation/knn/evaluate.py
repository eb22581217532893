"""The kNN evaluator: opens features as its options say, searches, votes, draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.evaluation.frozen_model import LabelledFeatures, labelled_features
from siamtransfer.evaluation.knn.baselines import (
    baseline_features,
    baselines_wanted,
    guessing,
    only_one_right,
)
from siamtransfer.evaluation.knn.config import KnnConfig
from siamtransfer.evaluation.knn.picture import write_neighbours
from siamtransfer.evaluation.knn.search import search_over_ranks
from siamtransfer.evaluation.knn.searchers import SearchOptions
from siamtransfer.evaluation.knn.top import Neighbours
from siamtransfer.evaluation.knn.verdict import remark_on_pixels
from siamtransfer.evaluation.knn.vote import KnnScores, score_neighbours
from siamtransfer.evaluation.remarks import add_remarks, remarks_on
from siamtransfer.features.extract import Features
from siamtransfer.metrics.paired_bootstrap import accuracy_interval
from siamtransfer.records.predictions import Predictions
from siamtransfer.records.result import Picture, Result
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

MAIN_K = 20  # the number of neighbours whose number is held against raw pixels


def evaluate(config: KnnConfig, runtime: Runtime) -> Result | None:
    """Accuracies (mAP for several labels an image) for every k and temperature, from one search at the
    largest k; None on all ranks but the first.

    Raises:
        UserError: there is one image, or whatever reading checkpoint, images or files finds.
    """
    data = labelled_features(config.checkpoint, config, runtime, mapped=True)
    if config.neighbours and data.images is None:
        raise UserError("--neighbours needs images: give a checkpoint and a set instead of feature files")
    result = score_features(data, config, runtime)
    if data.model is not None:
        data.model.require_untouched()
    if result is None:
        return None
    say_metrics(result.metrics)
    return result


def score_features(data: LabelledFeatures, config: KnnConfig, runtime: Runtime) -> Result | None:
    """The kNN scores of features that are there already; None on all ranks but the first.

    Raises:
        UserError: the bank is a single image.
    """
    if config.faiss_devices > 1 and runtime.world_size > 1:
        raise UserError("--faiss-devices is for one process: each rank searches its share on its own GPU")
    ks, remarks = possible_ks(config.k, len(data.train.features) - (data.test is None))
    vote = Vote(replace(config, k=ks), runtime)
    (similarities, indices), scores = vote(data.train, data.test)
    beside: dict[str, KnnScores] = {}
    if baselines_wanted(config, data):
        assert data.model is not None
        for name, train, other_test in baseline_features(data.model):
            beside[name] = vote(train, other_test)[1]
    if not runtime.is_main:
        return None
    test = data.test or data.train
    assert data.train.labels is not None
    assert test.labels is not None
    pictures = []
    if config.neighbours and data.images is not None:
        write = partial(write_neighbours, Path(config.neighbours), data.images, indices, similarities)
        shows = "one row for each query and its neighbours; red frames are other classes"
        pictures.append(Picture(config.neighbours, shows, write))
    protocol = {
        **data.protocol,
        "k": ks,
        "temperature": config.temperature,
        "uniform": config.uniform,
        "similarity": config.metric,
        **({"bank_dtype": "float16, rows of length one"} if config.bank_dtype == "float16" else {}),
        "interval": "percentile bootstrap over queries, 95 %",
    }
    if similarities.dtype == torch.float64:
        protocol["arithmetic"] = "float64 where float32 does not tell neighbours apart"
        say("neighbours that float32 does not tell apart were searched in float64")
    remarks += remarks_on(data.train, data.test, config.metric)
    metrics = scores.metrics | _numbers_beside(beside)
    if baselines_wanted(config, data) and test.labels.ndim == 1:
        metrics |= guessing(data.train.labels, test.labels)
        remarks += _remarks_beside(scores, beside, test.labels.numpy())
    add_remarks(protocol, remarks)
    predictions = Predictions(test.labels.numpy(), scores.predictions, scores.confidences)
    return Result("knn", metrics, protocol, data.provenance, predictions, pictures=tuple(pictures))


def possible_ks(ks: Sequence[int], available: int) -> tuple[list[int], list[str]]:
    """The numbers of neighbours that a bank can give of which each query has `available` others, each once,
    and a remark where they are not `ks`.

    Raises:
        UserError: there are none.
    """
    if available < 1:
        raise UserError("the bank is a single image, which has no neighbours: give more images")
    too_many = [k for k in ks if k > available]
    if not too_many:
        return list(ks), []
    asked = ", ".join(map(str, too_many))
    remark = (
        f"--k {asked} is more than the {available} neighbours that an image has: {available} vote instead"
    )
    return list(dict.fromkeys(min(k, available) for k in ks)), [remark]


@dataclass(frozen=True)
class Vote:
    """kNN as a configuration says, whose numbers of neighbours are possible."""

    config: KnnConfig
    runtime: Runtime

    def __call__(self, train: Features, test: Features | None) -> tuple[Neighbours, KnnScores]:
        """The neighbours in train of the rows of test (of train without itself where test is None), and the
        scores of their vote, which are empty on all ranks but the first."""
        config, queries = self.config, test or train
        options = SearchOptions(
            config.metric, int(config.memory_budget * 2**30), config.backend, config.faiss_devices
        )
        similarities, indices = search_over_ranks(
            train.features,
            queries.tensor,
            max(config.k),
            leave_one_out=test is None,
            options=options,
            half=config.bank_dtype == "float16",
            runtime=self.runtime,
        )
        if not self.runtime.is_main:
            return (similarities, indices), KnnScores()
        assert train.labels is not None
        assert queries.labels is not None
        temperatures = [*config.temperature, *([None] if config.uniform else [])]
        scores = score_neighbours(
            similarities,
            indices,
            train.labels,
            queries.labels,
            config.k,
            temperatures,
            metric=config.metric,
        )
        return (similarities, indices), scores


def _numbers_beside(beside: dict[str, KnnScores]) -> dict[str, float]:
    """The first number of each setting of the baselines, by names that begin with `baseline/NAME/`."""
    return {
        f"baseline/{name}/{metric}": value
        for name, scores in beside.items()
        for metric, value in scores.metrics.items()
        if metric.endswith(("/top1", "/mAP"))
    }


def _remarks_beside(scores: KnnScores, beside: dict[str, KnnScores], labels: np.ndarray) -> list[str]:
    """A warning where raw pixels are as good, in the setting whose k is nearest to MAIN_K."""
    if "pixels" not in beside:
        return []
    setting = min(scores.predictions, key=lambda name: abs(int(name[2:].partition("/")[0]) - MAIN_K))
    ours, pixels = (each.predictions[setting] for each in (scores, beside["pixels"]))
    difference, (low, _) = _difference(ours, pixels, labels)
    remark = remark_on_pixels(
        *(each.metrics[f"knn/{setting}/top1"] for each in (scores, beside["pixels"])),
        margin=difference - low,
        queries=len(labels),
        what="the checkpoint",
    )
    return [] if remark is None else [remark]


def _difference(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """The difference of the accuracies of two predictions in percentage points, and its paired interval."""
    gained, lost = only_one_right(first, second, labels)
    return 100 * (gained - lost) / len(labels), accuracy_interval(lost, gained, len(labels))
