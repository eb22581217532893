"""Objects of LVIS's many classes, scored by the evaluation of LVIS's authors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from siamtransfer.detection.tasks.objects import ObjectsTask
from siamtransfer.detection.tasks.task import Collector
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class LvisTask(ObjectsTask):
    """Boxes and masks of rare, common and frequent classes."""

    name: ClassVar[str] = "lvis"
    needs_masks: ClassVar[bool] = True
    headline: ClassVar[str] = "segmentation/AP"
    mains: ClassVar[tuple[str, ...]] = (
        *(f"segmentation/{name}" for name in ("AP", "AP50", "AP75", "APr", "APc", "APf")),
        "detection/AP",
    )

    metric: str = (
        "AP by lvis: mean over classes and over IoU 0.50 to 0.95; in an image only the classes count that it "
        "is annotated with or checked for; at most 300 detections an image"
    )

    def hold_out(self, fraction: float) -> Self:
        if len(self.data.train_splits) > 1:
            raise UserError(
                "the search holds out images of one training file of LVIS; name one in DATASETS.TRAIN"
            )
        return super().hold_out(fraction)

    def collector(self, stop: StopSignal | None) -> Collector:
        from siamtransfer.detection.detectron2.lvis_collector import LvisCollector

        return LvisCollector(self.data, stop)
