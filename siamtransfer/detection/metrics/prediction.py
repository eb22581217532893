"""The detections in one image, in the form in which both engines give them to the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, TypeVar

import numpy as np

from siamtransfer.detection.data.dataset_split import ImageRecord


class Prediction(TypedDict):
    """The n detections in an image, in any order.

    boxes: float32[n,4], x0 y0 x1 y1 in pixels of the original image; scores: float32[n]; classes: int64[n],
    category_id; masks: n run lengths in COCO's compressed form ({"size": [height, width], "counts": bytes}),
    or None when the model has no masks.
    """

    image_id: Any
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: Sequence[dict[str, Any]] | None


class KeypointPrediction(Prediction):
    """With keypoints: float32[n,K,3], x, y in pixels of the original image and a score each."""

    keypoints: np.ndarray


AnyPrediction = TypeVar("AnyPrediction", bound=Prediction)


def in_order(predictions: Sequence[AnyPrediction], records: Sequence[ImageRecord]) -> list[AnyPrediction]:
    """The predictions in the order of the records.

    Raises:
        ValueError: an image has no prediction (without detections its arrays are empty) or several,
            arrays of one differ in length, or a prediction belongs to no record.
    """
    of_image = {prediction["image_id"]: prediction for prediction in predictions}
    if len(of_image) != len(predictions):
        raise ValueError(f"{len(predictions) - len(of_image)} images have several predictions")
    expected = [record["image_id"] for record in records]
    if of_image.keys() != set(expected):
        odd = of_image.keys() ^ set(expected)
        raise ValueError(f"predictions and images differ by {len(odd)} images, {next(iter(odd))!r} for one")
    for prediction in predictions:
        masks = prediction["masks"]
        lengths = {len(prediction[key]) for key in ("boxes", "scores", "classes")}
        if len(lengths | ({len(masks)} if masks is not None else set())) != 1:
            raise ValueError(f"the arrays of image {prediction['image_id']!r} differ in length: {lengths}")
    return [of_image[image] for image in expected]
