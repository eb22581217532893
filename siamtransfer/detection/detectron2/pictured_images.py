"""Keeps the detections in the test images that are drawn, where an evaluator of Detectron2 keeps the others.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.detectron2.prediction_collector import prediction_of
from siamtransfer.detection.detectron2.stopping import leave_on_signal
from siamtransfer.detection.metrics.instance_outputs import PicturedOutputs
from siamtransfer.detection.metrics.mask_outputs import pictured
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.distributed.signals import StopSignal


class PicturedImages:
    """The detections in some images of the test data, which lie at equal distances."""

    def __init__(self, data: DetectionData):
        self.classes = data.classes
        self.records = [data.test[number] for number in pictured(len(data.test))]
        self.ids = {record["image_id"] for record in self.records}
        self.predictions: list[Prediction] = []

    def add(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Takes what belongs to the images from a scored batch."""
        for image, output in zip(inputs, outputs, strict=True):
            if image["image_id"] in self.ids:
                self.predictions.append(prediction_of(image["image_id"], output["instances"]))

    def gather(self) -> None:
        """Brings the detections of all ranks to the main process; call it on all."""
        of_ranks = comm.gather(self.predictions)
        of_image = {prediction["image_id"]: prediction for local in of_ranks for prediction in local}
        self.predictions = list(of_image.values())

    @property
    def outputs(self) -> PicturedOutputs:
        """After `gather`, on the main process."""
        return PicturedOutputs(self.records, self.predictions, self.classes)


class PicturedEvaluator(DatasetEvaluator):
    """What Detectron2's evaluators of single data sets get beside their scores: put it before one of them.

    `stop`, where given, may end the program between two batches. A subclass sets both attributes, and calls
    `pictures.gather()` when it evaluates.
    """

    stop: StopSignal | None
    pictures: PicturedImages

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        leave_on_signal(self.stop)
        super().process(inputs, outputs)
        self.pictures.add(inputs, outputs)

    @property
    def outputs(self) -> PicturedOutputs:
        """After `evaluate`, on the main process."""
        return self.pictures.outputs
