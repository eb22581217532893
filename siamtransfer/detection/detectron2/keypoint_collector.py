"""Collects a model's keypoints of the test images and scores them.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.detectron2.prediction_collector import PredictionCollector, prediction_of
from siamtransfer.detection.detectron2.stopping import leave_on_signal
from siamtransfer.detection.metrics.keypoint_ap import keypoint_metrics
from siamtransfer.detection.metrics.prediction import KeypointPrediction
from siamtransfer.distributed.signals import StopSignal


class KeypointCollector(PredictionCollector):
    """A `PredictionCollector` that keeps keypoints too; `sigmas` are those of OKS."""

    predictions: list[KeypointPrediction]  # type: ignore[assignment]

    def __init__(self, data: DetectionData, sigmas: Sequence[float], stop: StopSignal | None):
        super().__init__(data, "coco", stop)
        self.sigmas = sigmas

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        leave_on_signal(self.stop)
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            of_image = prediction_of(image["image_id"], instances)
            self.predictions.append({**of_image, "keypoints": instances.pred_keypoints.numpy()})

    def score(self) -> dict[str, float]:
        keypoints = keypoint_metrics(self.predictions, self.data.test, len(self.data.classes), self.sigmas)
        return keypoints | super().score()
