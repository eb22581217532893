"""Boxes and masks of objects, scored by average precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from siamtransfer.detection.metrics.score_predictions import ApKind
from siamtransfer.detection.tasks.objects import ObjectsTask
from siamtransfer.detection.tasks.task import Collector
from siamtransfer.detection.trials import MAIN
from siamtransfer.distributed.signals import StopSignal


@dataclass(frozen=True, eq=False)
class InstancesTask(ObjectsTask):
    """Object detection and instance segmentation on `data`; `metric` is the kind of average precision."""

    name: ClassVar[str] = "instances"
    headline: ClassVar[str] = "detection/AP"
    mains: ClassVar[tuple[str, ...]] = MAIN

    metric: ApKind

    @property
    def scored(self) -> str:  # type: ignore[override]
        """What the test part needs: VOC's scores pass over difficult objects, COCO's over crowds."""
        return "objects that are " + ("no crowds" if self.metric == "coco" else "not difficult")

    def is_scored(self, annotation: dict[str, Any]) -> bool:
        if self.metric == "coco":
            return super().is_scored(annotation)
        return not annotation.get("difficult", False)

    def identity(self) -> dict[str, Any]:
        """Without the task's name, which runs of earlier versions do not have."""
        identity = super().identity()
        del identity["task"]
        return identity

    def collector(self, stop: StopSignal | None) -> Collector:
        from siamtransfer.detection.detectron2.prediction_collector import PredictionCollector

        return PredictionCollector(self.data, self.metric, stop)
