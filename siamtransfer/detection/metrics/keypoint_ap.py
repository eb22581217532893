"""COCO's average precision of keypoints, by object keypoint similarity (OKS) in place of IoU, by pycocotools.

Source: cocodataset.org/#keypoints-eval. OKS is the mean over the labelled keypoints of
exp(-d^2 / (2 s^2 k^2)), d the distance in pixels, s^2 the object's area, k twice the keypoint's sigma. The 20
detections of an image with the highest scores count. Objects without a labelled keypoint count neither way.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from siamtransfer.detection.data.coco_keypoints import PERSON, PIXEL_CENTRE
from siamtransfer.detection.data.dataset_split import ImageRecord, Skeleton
from siamtransfer.detection.metrics.coco_ap import (
    IOU_50,
    IOU_75,
    annotated_objects,
    coco_lists,
    detected_objects,
    indexed,
    mean_of_defined,
)
from siamtransfer.detection.metrics.prediction import KeypointPrediction, in_order
from siamtransfer.utils.errors import UserError

ALL, MEDIUM, LARGE = range(3)


def oks_sigmas(skeleton: Skeleton, stated: Sequence[float]) -> list[float]:
    """The sigma of each keypoint: the stated ones, or COCO's where the keypoints are COCO's of a person.

    Raises:
        UserError: none are stated for other keypoints, or not one positive number for each.
    """
    count = len(skeleton.names)
    if not stated:
        if skeleton.names == PERSON:
            from pycocotools.cocoeval import Params

            return [float(sigma) for sigma in Params("keypoints").kpt_oks_sigmas]
        raise UserError(
            f"these {count} keypoints are not those of COCO's persons, so their OKS sigmas must be stated: "
            f"append TEST.KEYPOINT_OKS_SIGMAS with {count} numbers, such as "
            f'"[{", ".join(["0.05"] * min(count, 3))}{", …" if count > 3 else ""}]" (the spread of each '
            "keypoint's annotation as a fraction of the root of the object's area)"
        )
    if len(stated) != count or not all(sigma > 0 for sigma in stated):
        raise UserError(
            f"TEST.KEYPOINT_OKS_SIGMAS has {list(stated)!r}; give a positive number for each of the {count} "
            "keypoints"
        )
    return [float(sigma) for sigma in stated]


def keypoint_metrics(
    predictions: Sequence[KeypointPrediction],
    records: Sequence[ImageRecord],
    classes: int,
    sigmas: Sequence[float],
) -> dict[str, float]:
    """COCO's ten numbers under keypoints/, in per cent, NaN for one that no object belongs to.

    As in Detectron2, the size of a detection is that of its box.

    Raises:
        ValueError: predictions and records do not belong together.
    """
    from pycocotools.cocoeval import COCOeval

    predictions = in_order(predictions, records)
    images, categories = coco_lists(records, classes)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = indexed(images, categories, _truth(records))
        detections = indexed(images, categories, _detections(predictions))
        evaluation = COCOeval(truth, detections, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    p, r = (np.asarray(evaluation.eval[key])[..., -1] for key in ("precision", "recall"))
    subsets = {
        "AP": p[..., ALL],
        "AP50": p[IOU_50, ..., ALL],
        "AP75": p[IOU_75, ..., ALL],
        "APm": p[..., MEDIUM],
        "APl": p[..., LARGE],
        "AR": r[..., ALL],
        "AR50": r[IOU_50, ..., ALL],
        "AR75": r[IOU_75, ..., ALL],
        "ARm": r[..., MEDIUM],
        "ARl": r[..., LARGE],
    }
    return {f"keypoints/{name}": 100 * mean_of_defined(values) for name, values in subsets.items()}


def _truth(records: Sequence[ImageRecord]) -> list[dict[str, Any]]:
    rows = annotated_objects(records, "bbox").rows()
    items = [item for record in records for item in record["annotations"]]
    for row, item in zip(rows, items, strict=True):
        points = item["keypoints"].reshape(-1, 3) - (PIXEL_CENTRE, PIXEL_CENTRE, 0)
        row |= {"keypoints": points.ravel().tolist(), "num_keypoints": item["num_keypoints"]}
    return rows


def _detections(predictions: Sequence[KeypointPrediction]) -> list[dict[str, Any]]:
    rows = detected_objects(predictions, "bbox").rows()
    points = [points for prediction in predictions for points in prediction["keypoints"]]
    for row, of_object in zip(rows, points, strict=True):
        shifted = of_object - np.array((PIXEL_CENTRE, PIXEL_CENTRE, 0), np.float32)
        row["keypoints"] = shifted.ravel().tolist()
    return rows
