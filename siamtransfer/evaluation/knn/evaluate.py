"""The kNN evaluator: opens features as its options say, searches, votes, draws."""

from __future__ import annotations

from pathlib import Path

import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.evaluation.frozen_model import LabelledFeatures, labelled_features
from siamtransfer.evaluation.knn.config import KnnConfig
from siamtransfer.evaluation.knn.picture import write_neighbours
from siamtransfer.evaluation.knn.search import search_over_ranks
from siamtransfer.evaluation.knn.searchers import SearchOptions
from siamtransfer.evaluation.knn.vote import score_neighbours
from siamtransfer.evaluation.remarks import add_remarks, remarks_on
from siamtransfer.records.predictions import Predictions
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


def evaluate(config: KnnConfig, runtime: Runtime) -> Result | None:
    """Accuracies (mAP for several labels an image) for every k and temperature, from one search at the
    largest k; None on all ranks but the first.

    Raises:
        UserError: there are fewer images than k, or whatever reading checkpoint, images or files finds.
    """
    data = labelled_features(config.checkpoint, config, runtime, mapped=True)
    if config.neighbours and data.images is None:
        raise UserError("--neighbours needs images: give a checkpoint and a set instead of feature files")
    result = score_features(data, config, runtime)
    if result is None:
        return None
    say_metrics(result.metrics)
    return result


def score_features(data: LabelledFeatures, config: KnnConfig, runtime: Runtime) -> Result | None:
    """The kNN scores of features that are there already; None on all ranks but the first."""
    test = data.test or data.train
    if config.faiss_devices > 1 and runtime.world_size > 1:
        raise UserError("--faiss-devices is for one process: each rank searches its share on its own GPU")
    options = SearchOptions(
        config.metric, int(config.memory_budget * 2**30), config.backend, config.faiss_devices
    )
    similarities, indices = search_over_ranks(
        data.train.features,
        test.tensor,
        max(config.k),
        leave_one_out=data.test is None,
        options=options,
        half=config.bank_dtype == "float16",
        runtime=runtime,
    )
    if not runtime.is_main:
        return None
    assert data.train.labels is not None
    assert test.labels is not None
    temperatures = [*config.temperature, *([None] if config.uniform else [])]
    scores = score_neighbours(
        similarities,
        indices,
        data.train.labels,
        test.labels,
        config.k,
        temperatures,
        metric=config.metric,
    )
    if config.neighbours and data.images is not None:
        write_neighbours(Path(config.neighbours), data.images, indices)
        say(
            f"wrote {config.neighbours}: one row for each query and its neighbours; "
            "red frames are other classes"
        )
    protocol = {
        **data.protocol,
        "k": config.k,
        "temperature": config.temperature,
        "uniform": config.uniform,
        "similarity": config.metric,
        **({"bank_dtype": "float16, rows of length one"} if config.bank_dtype == "float16" else {}),
        "interval": "percentile bootstrap over queries, 95 %",
    }
    if similarities.dtype == torch.float64:
        protocol["arithmetic"] = "float64 where float32 does not tell neighbours apart"
        say("neighbours that float32 does not tell apart were searched in float64")
    add_remarks(protocol, remarks_on(data.train, data.test, config.metric))
    predictions = Predictions(test.labels.numpy(), scores.predictions)
    return Result("knn", scores.metrics, protocol, data.provenance, predictions)
