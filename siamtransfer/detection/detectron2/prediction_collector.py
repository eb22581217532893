"""Collects a model's detections of the test images and scores them with the evaluation that engines share.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm

from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.detectron2.stopping import leave_on_signal
from siamtransfer.detection.metrics.instance_outputs import InstanceOutputs
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.detection.metrics.score_predictions import ApKind, score_predictions
from siamtransfer.distributed.signals import StopSignal


class PredictionCollector(DatasetEvaluator):
    """Gathers the predictions of all ranks; `stop`, where given, may end the program between two batches."""

    def __init__(self, data: DetectionData, metric: ApKind, stop: StopSignal | None):
        self.data, self.metric, self.stop = data, metric, stop
        self.predictions: list[Prediction] = []

    def reset(self) -> None:
        self.predictions = []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        leave_on_signal(self.stop)
        for image, output in zip(inputs, outputs, strict=True):
            self.predictions.append(prediction_of(image["image_id"], output["instances"]))

    def evaluate(self) -> dict[str, float]:
        """The metrics in per cent on the main process, {} on the others."""
        comm.synchronize()
        of_ranks = comm.gather(self.predictions)
        if not comm.is_main_process():
            return {}
        of_image = {prediction["image_id"]: prediction for local in of_ranks for prediction in local}
        self.predictions = list(of_image.values())
        return self.score()

    def score(self) -> dict[str, float]:
        """The metrics of the predictions of all images."""
        return score_predictions(self.predictions, self.data.test, self.metric, self.data.classes)

    @property
    def outputs(self) -> InstanceOutputs:
        """The detections of all images, after `evaluate` on the main process."""
        return InstanceOutputs(self.data, self.predictions)


def prediction_of(image_id: Any, instances: Instances) -> Prediction:
    """Detectron2's Instances of an image as arrays on the CPU, masks as COCO's run lengths."""
    instances = instances.to("cpu")
    masks = None
    if instances.has("pred_masks"):
        from pycocotools import mask as run_lengths

        masks = [
            run_lengths.encode(np.asfortranarray(mask, dtype=np.uint8))
            for mask in instances.pred_masks.numpy()
        ]
    return {
        "image_id": image_id,
        "boxes": instances.pred_boxes.tensor.numpy(),
        "scores": instances.scores.numpy(),
        "classes": instances.pred_classes.numpy(),
        "masks": masks,
    }
