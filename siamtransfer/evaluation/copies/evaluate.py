"""Copy detection: copies search the originals and the distractors; the ranked lists are scored by subset."""

from __future__ import annotations

import numpy as np

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.copies.config import CopiesConfig
from siamtransfer.evaluation.copies.copydays import open_copydays
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.evaluation.retrieval.searched import Search, run_search
from siamtransfer.metrics.ranked_lists import mean_of_queries, trapezoid_average_precision
from siamtransfer.records.result import Result
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.log import say


def evaluate(config: CopiesConfig, runtime: Runtime) -> Result | None:
    """mAP of every subset of copies, with its interval over the queries; None on all ranks but the first.

    Raises:
        UserError: whatever reading checkpoint and images finds.
    """
    with collectives.own_pace("opening the images"):
        found = open_copydays(config.data)
    if runtime.is_main:
        for remark in found.remarks:
            say(f"note: this is not the published Copydays: {remark}")
    search = Search(found.queries, found.originals, found.answers, config.data.distractors)
    searched = run_search(search, config, runtime)
    if not runtime.is_main:
        return None
    groups = np.array([originals[0] for originals in found.answers])
    precisions = np.array([average_precision(places, config.nearest) for places in searched.places])
    metrics: dict[str, float] = {}
    values: dict[str, np.ndarray] = {}
    for name, rows in found.subsets.items():
        values[name] = np.full(len(precisions), np.nan)
        values[name][rows] = precisions[rows]
        metrics |= mean_of_queries(f"copies/{name}/mAP", values[name], groups)
    say_metrics({name: value for name, value in metrics.items() if "/ci95" not in name})
    protocol = {
        "set": "copydays",
        "queries_of": {name: len(rows) for name, rows in found.subsets.items()},
        **searched.protocol,
        "average_precision": "trapezoids of precision over recall",
        "nearest": config.nearest,
        "interval": "percentile bootstrap over originals with all their copies, 95 %",
        **({"image_remarks": found.remarks} if found.remarks else {}),
    }
    kept = SampleValues(np.arange(len(precisions)), values, groups=groups)
    return Result("copies", metrics, protocol, searched.provenance, kept)


def average_precision(places: np.ndarray, nearest: int | None) -> float:
    """The average precision of a copy, from 0 to 1, for the places int64[n] of its n originals; those beyond
    the `nearest` images count as not found."""
    found = np.sort(places if nearest is None else places[places < nearest])
    return trapezoid_average_precision(found, len(places))
