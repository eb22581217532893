"""Pascal VOC's average precision at the IoUs 0.50 to 0.95, as Detectron2 reports it.

Sources: Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010, section 4.2 (11 points);
the VOC2010 development kit (all points); Detectron2's PascalVOCDetectionEvaluator for the rest: scores are
rounded to three decimals and boxes to one, boxes count pixels from 1 and include both corners, and the AP of
a class without objects is zero with 11 points and NaN with all.

metrics/average_precision.py does not serve here: its positives are known samples, all of them ranked; here an
object may be detected several times or never, and difficult ones count neither way.

Legend: d detections of a class in the order of their scores, g its objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from siamtransfer.detection.data.dataset_split import ImageRecord, corners
from siamtransfer.detection.metrics.prediction import Prediction

IOUS = range(50, 100, 5)  # per cent
FROM_ONE = np.array([1, 1, 0, 0], np.float32)  # from continuous coordinates to VOC's count of pixels


class Matches(NamedTuple):
    """The object that each detection overlaps most.

    overlap: float64[d], the IoU; object: int64[d], its index, -1 in images without objects;
    difficult: bool[g].
    """

    overlap: np.ndarray
    object: np.ndarray
    difficult: np.ndarray


def voc_ap(
    predictions: Sequence[Prediction], records: Sequence[ImageRecord], classes: int, *, all_points: bool
) -> np.ndarray:
    """AP float64[classes, IoUs] as a fraction; `predictions` in the order of `records`."""
    rows = _rounded(predictions)
    return np.array(
        [
            [average_precision(*curve(matches, iou / 100), all_points=all_points) for iou in IOUS]
            for matches in (_match(rows[rows[:, 1] == label], records, label) for label in range(classes))
        ]
    ).reshape(classes, len(IOUS))


def curve(matches: Matches, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision float64[d] after each detection.

    The first detection of an object is true and every further one false; those of a difficult object count as
    neither.
    """
    overlaps = matches.overlap > iou
    easy = ~matches.difficult
    counts = overlaps & easy[matches.object] if len(easy) else np.zeros_like(overlaps)
    candidates = np.flatnonzero(counts)
    first = candidates[np.unique(matches.object[candidates], return_index=True)[1]]
    true = np.zeros(len(overlaps))
    true[first] = 1
    false = np.where(overlaps, counts, 1) - true
    true, false = np.cumsum(true), np.cumsum(false)
    with np.errstate(invalid="ignore"):  # 0 / 0 in a class without objects
        recall = true / easy.sum()
    return recall, true / np.maximum(true + false, np.finfo(np.float64).eps)


def average_precision(recall: np.ndarray, precision: np.ndarray, *, all_points: bool) -> float:
    """The area under the curve of the highest precision at each recall or a larger one.

    VOC2010 (`all_points`) takes every point of the curve, VOC2007 the mean at the recalls 0, 0.1 … 1.
    """
    if not all_points:
        levels = np.arange(0.0, 1.1, 0.1)
        return sum(float(precision[recall >= level].max(initial=0)) / 11 for level in levels)
    recall = np.concatenate([[0.0], recall, [1.0]])
    envelope = np.maximum.accumulate(np.concatenate([precision, [0.0]])[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def _rounded(predictions: Sequence[Prediction]) -> np.ndarray:
    """Rows of image, class, score, x0, y0, x1, y1, float64[n,7], rounded as in VOC's result files."""
    rows = [np.empty((0, 7))]
    for image, prediction in enumerate(predictions):
        boxes = np.asarray(prediction["boxes"], np.float32).reshape(-1, 4) + FROM_ONE
        scores = [float(f"{score:.3f}") for score in np.asarray(prediction["scores"]).tolist()]
        rounded = [[float(f"{value:.1f}") for value in box] for box in boxes.tolist()]
        rows.append(np.column_stack([np.full(len(boxes), image), prediction["classes"], scores, rounded]))
    return np.concatenate([row for row in rows if len(row)] or rows[:1])


def _match(rows: np.ndarray, records: Sequence[ImageRecord], label: int) -> Matches:
    # Not a stable sort: among equal scores, of which three decimals make many, the order is Detectron2's.
    rows = rows[np.argsort(-rows[:, 2])]
    overlap, object_ = np.full(len(rows), -np.inf), np.full(len(rows), -1)
    difficult: list[bool] = []
    of_image = _by_image(rows[:, 0])
    for image, record in enumerate(records):
        objects = [item for item in record["annotations"] if item["category_id"] == label]
        if objects and image in of_image:
            in_image = of_image[image]
            overlaps = _ious(rows[in_image, 3:], np.array([corners(item) for item in objects]) + FROM_ONE)
            overlap[in_image] = overlaps.max(axis=1)
            object_[in_image] = len(difficult) + overlaps.argmax(axis=1)
        difficult += [item.get("difficult", False) for item in objects]
    return Matches(overlap, object_, np.array(difficult, bool))


def _by_image(images: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each image that has any."""
    order = np.argsort(images, kind="stable")
    present, starts = np.unique(images[order], return_index=True)
    return (
        dict(zip(present.astype(int).tolist(), np.split(order, starts[1:]), strict=True))
        if len(images)
        else {}
    )


def _ious(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU[n,m] of boxes that include both corner pixels."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    shared = np.maximum(high - low + 1, 0).prod(axis=2)
    area, area_truth = ((box[:, 2:] - box[:, :2] + 1).prod(axis=1) for box in (boxes, truth))
    return shared / (area[:, None] + area_truth[None] - shared)
