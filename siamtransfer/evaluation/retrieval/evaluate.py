"""Image retrieval: opens the set, searches it, and scores the ranked lists.

Legend: Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.evaluation.retrieval.config import RetrievalConfig
from siamtransfer.evaluation.retrieval.ground_truth import GroundTruth
from siamtransfer.evaluation.retrieval.searched import Search, run_search
from siamtransfer.evaluation.retrieval.sets import open_retrieval_set
from siamtransfer.metrics.ranked_lists import (
    mean_of_queries,
    precision_at,
    trapezoid_average_precision,
    without_junk,
)
from siamtransfer.records.result import Result
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

KS = (1, 5, 10)
AVERAGE_PRECISION = "trapezoids of precision over recall, junk taken out of the list (revisitop)"
INTERVAL = "percentile bootstrap over queries, 95 %"


def evaluate(config: RetrievalConfig, runtime: Runtime) -> Result | None:
    """mAP and mP@1, 5, 10 of every setting (easy, medium and hard), with intervals over the queries; None on
    all ranks but the first.

    Raises:
        UserError: no query of a setting has a positive, or whatever reading checkpoint, images and ground
            truth finds.
    """
    with collectives.own_pace("opening the images"):
        found = open_retrieval_set(config.data)
    if runtime.is_main:
        for remark in found.remarks:
            say(f"note: this is not the published {found.name}: {remark}")
    truth = found.truth
    names = [name for name in truth.settings if _answered(truth, name)]
    if not names:
        raise UserError(f"no query of {found.name} has a positive image: there is nothing to score")
    listed = [np.unique(np.concatenate(list(query.kinds.values()))) for query in truth.queries]
    search = Search(
        found.queries, found.database, listed, config.data.distractors, config.query_crop, found.boxes
    )
    searched = run_search(search, config, runtime)
    if not runtime.is_main:
        return None
    metrics: dict[str, float] = {}
    values: dict[str, np.ndarray] = {}
    for name in names:
        scores = score_setting(truth, name, listed, searched.places)
        for measure, of_queries in scores.items():
            metrics |= mean_of_queries(f"retrieval/{name}/{measure}", of_queries)
        values[name] = scores["mAP"]
    say_metrics({name: value for name, value in metrics.items() if "/ci95" not in name})
    protocol = {
        "set": found.name,
        **searched.protocol,
        "query_crop": config.query_crop if any(found.boxes) else "the set has no boxes",
        "average_precision": AVERAGE_PRECISION,
        "settings": {
            name: dict(zip(("positive", "taken_out"), truth.settings[name], strict=True)) for name in names
        },
        "queries_without_positives": {name: int(np.isnan(values[name]).sum()) for name in names},
        "interval": INTERVAL,
        **({"image_remarks": found.remarks} if found.remarks else {}),
    }
    provenance = {**searched.provenance, "ground_truth_fingerprint": truth.fingerprint}
    kept = SampleValues(np.arange(len(truth.queries)), values)
    return Result("retrieval", metrics, protocol, provenance, kept)


def score_setting(
    truth: GroundTruth, setting: str, listed: Sequence[np.ndarray], places: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """float64[Q], from 0 to 1, by measure: the average precision (mAP) and the precision at each of KS (mP@k)
    of every query; NaN for a query without a positive image in this setting.

    `listed` are the images of each query, rising, and `places` those in its ranked list.
    """
    positive, taken_out = truth.settings[setting]
    scores = {name: np.full(len(truth.queries), np.nan) for name in ("mAP", *(f"mP@{k}" for k in KS))}
    for row, query in enumerate(truth.queries):
        answers, junk = query.of_kinds(positive), query.of_kinds(taken_out)
        if not len(answers):
            continue
        at = [places[row][np.searchsorted(listed[row], numbers)] for numbers in (answers, junk)]
        positions = without_junk(*at)
        scores["mAP"][row] = trapezoid_average_precision(positions, len(answers))
        for k in KS:
            scores[f"mP@{k}"][row] = precision_at(positions, k)
    return scores


def _answered(truth: GroundTruth, setting: str) -> bool:
    """Whether a query has a positive image in this setting."""
    return any(len(query.of_kinds(truth.settings[setting][0])) for query in truth.queries)
