"""COCO's average precision and recall of boxes and masks, by pycocotools or by hotcoco.

pycocotools is the reference (Lin et al., Microsoft COCO, ECCV 2014; cocodataset.org/#detection-eval). hotcoco
computes the same arrays about a hundred times faster, on all cores. Both get the same objects and return the
same arrays: precision P[T,R,K,A,M] and recall[T,K,A,M] at IoU T (0.50 to 0.95), recall R (0 to 1), class K,
area A (all, small, medium, large) and at most M detections an image (1, 10, 100); -1 where a class has no
object.

metrics/average_precision.py does not serve here: COCO matches detections to objects before it ranks them, and
takes the precision at 101 recalls.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from siamtransfer.detection.data.coco_masks import encoded
from siamtransfer.detection.data.dataset_split import XYWH, ImageRecord
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.utils.errors import UserError

Backend = Literal["hotcoco", "pycocotools"]
IouType = Literal["bbox", "segm"]
IOU_50, IOU_75 = 0, 5
ALL, SMALL, MEDIUM, LARGE = range(4)


class Curves(NamedTuple):
    """precision float64[T,R,K,A,M] and recall float64[T,K,A,M]; -1 where a class has no object."""

    precision: np.ndarray
    recall: np.ndarray

    def metrics(self) -> dict[str, float]:
        """COCO's twelve numbers as fractions, NaN for one that no object belongs to."""
        p, r = self.precision, self.recall
        subsets = {
            "AP": p[..., ALL, -1],
            "AP50": p[IOU_50, ..., ALL, -1],
            "AP75": p[IOU_75, ..., ALL, -1],
            "APs": p[..., SMALL, -1],
            "APm": p[..., MEDIUM, -1],
            "APl": p[..., LARGE, -1],
            "AR1": r[..., ALL, 0],
            "AR10": r[..., ALL, 1],
            "AR100": r[..., ALL, 2],
            "ARs": r[..., SMALL, -1],
            "ARm": r[..., MEDIUM, -1],
            "ARl": r[..., LARGE, -1],
        }
        return {name: mean_of_defined(values) for name, values in subsets.items()}

    def ap_of_classes(self) -> list[float]:
        """The AP of each class as a fraction, NaN for one without objects."""
        return [mean_of_defined(values) for values in np.moveaxis(self.precision[..., ALL, -1], 2, 0)]


def mean_of_defined(values: np.ndarray) -> float:
    """The mean of the values that an object belongs to (those above -1); NaN where there is none."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else float("nan")


def coco_curves(
    predictions: Sequence[Prediction],
    records: Sequence[ImageRecord],
    classes: int,
    iou_type: IouType,
    backend: Backend = "hotcoco",
) -> Curves:
    """Scores detections, in the order of `records`, by their boxes or their masks.

    Image k has the id k+1 and class c the id c+1 in both libraries. The area of a detected mask is its
    own, as in Detectron2, not that of its box.

    Raises:
        UserError: the library is not installed.
    """
    truth, detections = annotated_objects(records, iou_type), detected_objects(predictions, iou_type)
    images, categories = coco_lists(records, classes)
    evaluate = {"hotcoco": _hotcoco, "pycocotools": _pycocotools}[backend]
    try:
        return evaluate(truth, detections, images, categories, iou_type)
    except ModuleNotFoundError as error:
        raise UserError(
            f"COCO's AP needs {error.name}, which is not installed; `pip install 'siamtransfer[detection]'`"
        ) from error


def coco_lists(records: Sequence[ImageRecord], classes: int) -> tuple[list[Any], list[Any]]:
    """The lists `images` and `categories` of a COCO file, with ids from 1."""
    images = [
        {"id": number, "height": record["height"], "width": record["width"]}
        for number, record in enumerate(records, 1)
    ]
    return images, [{"id": number, "name": str(number)} for number in range(1, classes + 1)]


def indexed(images: list[Any], categories: list[Any], annotations: list[dict[str, Any]]) -> Any:
    """pycocotools' COCO over the lists of a COCO file."""
    from pycocotools.coco import COCO

    api = COCO()
    api.dataset = {"images": images, "categories": categories, "annotations": annotations}
    api.createIndex()
    return api


@dataclass
class CocoObjects:
    """n annotated or detected objects in columns.

    image, category: int64[n], counted from 1; boxes: float64[n,4], x y width height; area, score: float64[n];
    crowd: int64[n], 0 or 1; masks: n compressed run lengths.
    """

    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    score: np.ndarray
    masks: list[Any] | None

    def rows(self) -> list[dict[str, Any]]:
        """One dict an object, as COCO's files have them, with ids from 1."""
        columns = {
            "image_id": self.image,
            "category_id": self.category,
            "bbox": self.boxes,
            "area": self.area,
            "iscrowd": self.crowd,
            "score": self.score,
        }
        lists = [column.tolist() for column in columns.values()]
        rows = [
            {"id": k, **dict(zip(columns, row, strict=True))}
            for k, row in enumerate(zip(*lists, strict=True), 1)
        ]
        if self.masks is not None:
            for row, mask in zip(rows, self.masks, strict=True):
                row["segmentation"] = mask
        return rows


def annotated_objects(records: Sequence[ImageRecord], iou_type: IouType) -> CocoObjects:
    """The objects of the records; with their masks for `segm`."""
    items = [
        (number, record, item) for number, record in enumerate(records, 1) for item in record["annotations"]
    ]
    boxes = [
        item["bbox"] if item["bbox_mode"] == XYWH else [a, b, c - a, d - b]
        for _, _, item in items
        for a, b, c, d in [item["bbox"]]
    ]
    masks = None
    if iou_type == "segm":
        if any("segmentation" not in item for _, _, item in items):
            raise UserError("mask AP needs a mask of every object, and some have none; score boxes instead")
        masks = [
            encoded(item["segmentation"], record["height"], record["width"]) for _, record, item in items
        ]
    return CocoObjects(
        np.array([number for number, _, _ in items], np.int64),
        np.array([item["category_id"] + 1 for _, _, item in items], np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([item["area"] for _, _, item in items], np.float64),
        np.array([item.get("iscrowd", 0) for _, _, item in items], np.int64),
        np.zeros(len(items)),
        masks,
    )


def detected_objects(predictions: Sequence[Prediction], iou_type: IouType) -> CocoObjects:
    """The detections of all images in one; with their masks, and the areas of these, for `segm`."""
    counts = [len(prediction["scores"]) for prediction in predictions]
    corners = np.concatenate(
        [
            np.empty((0, 4), np.float32),
            *(np.reshape(prediction["boxes"], (-1, 4)) for prediction in predictions),
        ]
    )
    # Width and height in the precision of the boxes, as Detectron2 has them.
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float64)
    area, masks = boxes[:, 2] * boxes[:, 3], None
    if iou_type == "segm":
        from pycocotools import mask as run_lengths

        if any(prediction["masks"] is None for prediction in predictions):
            raise UserError("mask AP needs the masks of the detections, and this model has none; score boxes")
        masks = [mask for prediction in predictions for mask in prediction["masks"] or ()]
        # One by one: pycocotools 2.0.11 fails on more than 255 at once.
        area = np.array([run_lengths.area(mask) for mask in masks], np.float64)
    return CocoObjects(
        np.repeat(np.arange(1, len(predictions) + 1), counts),
        _joined(predictions, "classes").astype(np.int64) + 1,
        boxes,
        area,
        np.zeros(len(boxes), np.int64),
        _joined(predictions, "scores").astype(np.float64),
        masks,
    )


def _joined(predictions: Sequence[Prediction], key: Literal["scores", "classes"]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *(prediction[key] for prediction in predictions)])


def _hotcoco(
    truth: CocoObjects, detections: CocoObjects, images: list, categories: list, iou_type: IouType
) -> Curves:
    import hotcoco

    dataset = hotcoco.COCO.from_arrays(
        images, categories, truth.image, truth.category, truth.boxes,
        area=truth.area, iscrowd=truth.crowd, segmentation=truth.masks,
    )  # fmt: skip
    table = np.column_stack(
        [detections.image, detections.boxes, detections.score, detections.category]
    ).astype(np.float64)
    results = dataset.load_res(table, segmentation=detections.masks)
    if iou_type == "segm" and len(table):
        results.update_anns(ids=np.arange(1, len(table) + 1), area=detections.area)
    return _curves(hotcoco.COCOeval(dataset, results, iou_type))


def _pycocotools(
    truth: CocoObjects, detections: CocoObjects, images: list, categories: list, iou_type: IouType
) -> Curves:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        sides = [indexed(images, categories, objects.rows()) for objects in (truth, detections)]
        return _curves(COCOeval(*sides, iou_type))


def _curves(coco_eval: Any) -> Curves:
    coco_eval.evaluate()
    coco_eval.accumulate()
    return Curves(np.asarray(coco_eval.eval["precision"]), np.asarray(coco_eval.eval["recall"]))
