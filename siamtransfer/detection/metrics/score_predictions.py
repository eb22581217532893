"""Named metrics of predictions: one evaluation for both engines and all data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from siamtransfer.detection.data.dataset_split import ImageRecord
from siamtransfer.detection.metrics.coco_ap import Backend, IouType, coco_curves
from siamtransfer.detection.metrics.prediction import Prediction, in_order
from siamtransfer.detection.metrics.voc_ap import IOUS, voc_ap
from siamtransfer.utils.errors import UserError

ApKind = Literal["voc", "voc-all-points", "coco"]
IOU_TYPES: dict[str, IouType] = {"detection": "bbox", "segmentation": "segm"}


def score_predictions(
    predictions: Sequence[Prediction],
    records: Sequence[ImageRecord],
    metric: ApKind,
    classes: Sequence[str],
    backend: Backend = "hotcoco",
) -> dict[str, float]:
    """Scores one prediction for each record; all values are percentages.

    voc: VOC2007's 11-point AP; voc-all-points: VOC2010's; both as detection/AP (mean over IoU 0.50 to 0.95),
    AP50 and AP75. coco: those and COCO's other nine (APs, APm, APl, AR1 …), and the same under segmentation/
    where the predictions have masks. Of each class, detection/AP/CLASS, and for VOC detection/AP50/CLASS.

    Raises:
        UserError: there is no such metric, or COCO's library is not installed.
        ValueError: predictions and records do not belong together.
    """
    if metric not in get_args(ApKind):
        raise UserError(f"there is no detection metric {metric!r}; take {', '.join(get_args(ApKind))}")
    predictions = in_order(predictions, records)
    if metric != "coco":
        ap = voc_ap(predictions, records, len(classes), all_points=metric == "voc-all-points")
        return _voc_metrics(ap, classes)
    values: dict[str, float] = {}
    for name, iou_type in IOU_TYPES.items():
        if iou_type == "segm" and any(prediction["masks"] is None for prediction in predictions):
            continue
        curves = coco_curves(predictions, records, len(classes), iou_type, backend)
        of_classes = zip(classes, curves.ap_of_classes(), strict=True)
        fractions = curves.metrics() | {f"AP/{label}": ap for label, ap in of_classes}
        values |= {f"{name}/{key}": 100 * value for key, value in fractions.items()}
    return values


def _voc_metrics(ap: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """The metrics of AP[classes, IoUs], a fraction, in per cent."""
    percent = 100 * ap
    at = {iou: percent[:, IOUS.index(iou)] for iou in (50, 75)}
    values = {
        "detection/AP": float(percent.mean(axis=0).mean()),
        "detection/AP50": float(at[50].mean()),
        "detection/AP75": float(at[75].mean()),
    }
    for number, label in enumerate(classes):
        values[f"detection/AP/{label}"] = float(percent[number].mean())
        values[f"detection/AP50/{label}"] = float(at[50][number])
    return values
