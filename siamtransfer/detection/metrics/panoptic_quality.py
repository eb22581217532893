"""Panoptic quality of images, by hotcoco (whose numbers are those of panopticapi), and its interval.

Source: Kirillov et al. 2019 (arXiv 1801.00868). A predicted and a true segment of the same class match where
their IoU, void pixels of the truth left out, is above one half. Of a class, PQ is the sum of the IoUs of its
matches over TP + FP/2 + FN/2, SQ their mean IoU, RQ the F1 score; over classes, the mean of those with any
segment. Crowds and predictions mostly on void or on crowds of their class count neither way.

Legend: N images, C classes (things, then stuff), R resamples of the images. Counts are float64[N,C,4]: the
sum of IoUs, TP, FP, FN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write

COUNTS = "panoptic_counts.npz"
RESAMPLES, SEED = 1000, 0
_KINDS = ("iou", "tp", "fp", "fn")
_AT_ONCE = 100  # resamples that are in memory at once


def count_segments(
    truth: np.ndarray,
    segments: Sequence[Mapping[str, Any]],
    predicted: np.ndarray,
    found: Sequence[Mapping[str, Any]],
    classes: int,
) -> np.ndarray:
    """The counts float64[C,4] of one image.

    truth, predicted: the segment of each pixel, integers[H,W], 0 for none; segments, found: the id,
    category_id (0 to C-1) and, in the truth, iscrowd of each. Segments without a pixel are left out.

    Raises:
        UserError: hotcoco is not installed.
    """
    try:
        from hotcoco.panoptic import PanopticEval
    except ModuleNotFoundError as error:
        raise UserError(
            f"panoptic quality needs {error.name}, which is not installed; "
            "`pip install 'siamtransfer[detection]'`"
        ) from error
    height, width = truth.shape
    lists = {
        "images": [{"id": 1, "height": height, "width": width, "file_name": "1.jpg"}],
        "categories": [{"id": number + 1, "name": str(number), "isthing": 1} for number in range(classes)],
    }
    sides = [
        {**lists, "annotations": _rows(ids, listed)}
        for ids, listed in ((truth, segments), (predicted, found))
    ]
    evaluation = PanopticEval(*sides)
    evaluation.evaluate()
    counts = np.zeros((classes, len(_KINDS)))
    for key, values in evaluation.results()["per_class"].items():
        counts[key - 1] = [values[kind] for kind in _KINDS]
    return counts


def _rows(ids: np.ndarray, segments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Segments as annotations of COCO's kind, with a mask each."""
    from pycocotools import mask as run_lengths

    rows = []
    for number, segment in enumerate(segments, 1):
        inside = ids == segment["id"]
        area = int(inside.sum())
        if not area:
            continue
        mask = run_lengths.encode(np.asfortranarray(inside, np.uint8))
        rows.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": segment["category_id"] + 1,
                "iscrowd": segment.get("iscrowd", 0),
                "area": area,
                "bbox": run_lengths.toBbox(mask).tolist(),
                "segmentation": {"size": list(ids.shape), "counts": mask["counts"].decode()},
            }
        )
    return rows


def panoptic_metrics(counts: np.ndarray, classes: Sequence[str], things: int) -> dict[str, float]:
    """PQ, SQ and RQ of all classes, of things and of stuff, PQ of each class, in per cent under panoptic/.

    counts: float64[N,C,4], things first. NaN for a class without a segment in truth and prediction.
    """
    total = counts.sum(axis=0)
    groups = {"": slice(None), "_things": slice(things), "_stuff": slice(things, None)}
    values = {
        f"panoptic/{name}{group}": 100 * float(_mean_of_present(of_classes[chosen]))
        for group, chosen in groups.items()
        for name, of_classes in _qualities(total).items()
    }
    of_classes = _qualities(total)["PQ"]
    return values | {
        f"panoptic/PQ/{label}": 100 * float(value) for label, value in zip(classes, of_classes, strict=True)
    }


def _qualities(counts: np.ndarray) -> dict[str, np.ndarray]:
    """PQ, SQ and RQ[...,C] of counts[...,C,4]; NaN for a class without a segment, SQ 0 for one without a
    match."""
    iou, tp, fp, fn = np.moveaxis(counts, -1, 0)
    segments = tp + (fp + fn) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        sq = np.where(segments > 0, np.where(tp > 0, iou / tp, 0.0), np.nan)
        return {"PQ": iou / segments, "SQ": sq, "RQ": tp / segments}


def _mean_of_present(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(present, values, 0).sum(axis=-1) / present.sum(axis=-1)


def resampled_pq(sets: Sequence[np.ndarray], things: int) -> dict[str, np.ndarray]:
    """float64[S,R] for PQ, PQ_things and PQ_stuff, in per cent: of S sets of counts[N,C,4] in R resamples of
    the images, the same for all sets."""
    count, classes, _ = sets[0].shape
    generator = np.random.default_rng(SEED)
    groups = {"PQ": slice(None), "PQ_things": slice(things), "PQ_stuff": slice(things, None)}
    values = {name: np.empty((len(sets), RESAMPLES)) for name in groups}
    for start in range(0, RESAMPLES, _AT_ONCE):
        drawn = generator.integers(0, count, (_AT_ONCE, count))
        weights = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)
        for number, counts in enumerate(sets):
            totals = (weights @ counts.reshape(count, -1)).reshape(-1, classes, len(_KINDS))
            pq = _qualities(totals)["PQ"]
            for name, chosen in groups.items():
                values[name][number, start : start + _AT_ONCE] = 100 * _mean_of_present(pq[:, chosen])
    return values


def pq_intervals(sets: Sequence[np.ndarray], things: int) -> dict[str, tuple[float, float]]:
    """The 95 % intervals of PQ, PQ_things and PQ_stuff over resampled images; of two sets those of first
    minus second."""
    drawn = resampled_pq(sets, things)
    differences = {
        name: values[0] - values[1] if len(sets) == 2 else values[0] for name, values in drawn.items()
    }
    ends = {}
    for name, values in differences.items():
        defined = values[~np.isnan(values)]
        low, high = np.quantile(defined, (0.025, 0.975)) if len(defined) else (np.nan, np.nan)
        ends[name] = float(low), float(high)
    return ends


def write_counts(folder: Path, counts: np.ndarray) -> None:
    """Writes counts[N,C,4] of a trial into its folder."""
    with atomic_write(folder / COUNTS) as file:
        np.savez_compressed(file, counts=counts)


def read_counts(folder: Path) -> np.ndarray:
    """The counts[N,C,4] of the test images that a trial has left in its folder.

    Raises:
        UserError: they are missing or damaged.
    """
    path = folder / COUNTS
    try:
        with np.load(path) as arrays:
            return arrays["counts"]
    except Exception as error:  # a damaged archive makes NumPy, zipfile and zlib raise many types
        raise UserError(f"{path} cannot be read ({error}); score the trial again by --eval-only") from error
