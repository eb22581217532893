"""Instances of Cityscapes, scored by the benchmark's own evaluation of masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from siamtransfer.detection.tasks.objects import ObjectsTask
from siamtransfer.detection.tasks.task import Collector
from siamtransfer.distributed.signals import StopSignal


@dataclass(frozen=True, eq=False)
class CityscapesTask(ObjectsTask):
    """Masks of the eight classes of Cityscapes whose objects count."""

    name: ClassVar[str] = "cityscapes-instances"
    needs_masks: ClassVar[bool] = True
    headline: ClassVar[str] = "segmentation/AP"
    mains: ClassVar[tuple[str, ...]] = ("segmentation/AP", "segmentation/AP50")

    metric: str = (
        "AP of masks by cityscapesscripts: mean over classes and over IoU 0.50 to 0.95; predictions that lie "
        "on ignored regions or on groups do not count"
    )

    def collector(self, stop: StopSignal | None) -> Collector:
        from siamtransfer.detection.detectron2.cityscapes_collector import CityscapesCollector

        return CityscapesCollector(self.data, stop)
