"""Panoptic segmentation with a panoptic FPN, scored by panoptic quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from siamtransfer.detection.data.panoptic_pngs import SEGMENTS
from siamtransfer.detection.metrics.panoptic_quality import pq_intervals, read_counts
from siamtransfer.detection.tasks.objects import ObjectsTask
from siamtransfer.detection.tasks.task import Collector
from siamtransfer.detection.trials import MAIN
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class PanopticTask(ObjectsTask):
    """The segment of every pixel, objects and stuff of `data` (Kirillov et al. 2019, arXiv 1901.02446)."""

    name: ClassVar[str] = "panoptic"
    evaluation: ClassVar[str] = "panoptic-segmentation"
    headline: ClassVar[str] = "panoptic/PQ"
    mains: ClassVar[tuple[str, ...]] = ("panoptic/PQ", "panoptic/PQ_things", "panoptic/PQ_stuff", *MAIN)

    metric: str = "panoptic quality by hotcoco, which computes panopticapi's; boxes and masks: coco"

    scored: ClassVar[str] = "segments that are no crowds"

    def has_scored_objects(self) -> bool:
        segments = (segment for record in self.data.test for segment in record[SEGMENTS])
        return any(map(self.is_scored, segments))

    def image_intervals(self, folders: Sequence[Path]) -> dict[str, float]:
        counts, things = [read_counts(folder) for folder in folders], len(self.classes)
        found = {"": pq_intervals(counts[:1], things)}
        if len(counts) == 2:
            found["compare/"] = pq_intervals(counts, things)
        return {
            f"{prefix}panoptic/{name}/images_{end}": value
            for prefix, of_metrics in found.items()
            for name, ends in of_metrics.items()
            for end, value in zip(("low", "high"), ends, strict=True)
        }

    def fit_settings(self, cfg: Any) -> None:
        if not cfg.MODEL.MASK_ON:
            raise UserError("PanopticFPN needs the masks of objects; append MODEL.MASK_ON True")
        if cfg.MODEL.KEYPOINT_ON:
            raise UserError("panoptic data have no keypoints; append MODEL.KEYPOINT_ON False")
        super().fit_settings(cfg)
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(self.data.stuff) + 1  # 0 stands for all things

    def mapper(self, cfg: Any) -> Any:
        from siamtransfer.detection.detectron2.panoptic_mapper import PanopticMapper

        return PanopticMapper(cfg)

    def collector(self, stop: StopSignal | None) -> Collector:
        from siamtransfer.detection.detectron2.panoptic_collector import PanopticCollector

        return PanopticCollector(self.data, stop)
