"""What a scored detector leaves beside its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from siamtransfer.detection.data.dataset_split import ImageRecord
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.metrics.pictures import draw_predictions
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.detection.tasks.task import PICTURE


@dataclass(frozen=True, eq=False)
class PicturedOutputs:
    """A picture of the annotated objects of a few test images, `records`, beside their detections."""

    records: Sequence[ImageRecord]
    predictions: Sequence[Prediction]
    classes: Sequence[str]

    def write(self, folder: Path) -> None:
        draw_predictions(folder / PICTURE, self.records, self.predictions, self.classes)


@dataclass(frozen=True, eq=False)
class InstanceOutputs:
    """A picture of annotated objects beside detections."""

    data: DetectionData
    predictions: Sequence[Prediction]

    def write(self, folder: Path) -> None:
        edges = self.data.skeleton.edges if self.data.skeleton else ()
        draw_predictions(folder / PICTURE, self.data.test, self.predictions, self.data.classes, edges=edges)
