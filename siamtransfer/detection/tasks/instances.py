"""Boxes and masks of objects, scored by average precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.lr_search import hold_out
from siamtransfer.detection.metrics.score_predictions import ApKind
from siamtransfer.detection.tasks.task import Collector, Task
from siamtransfer.detection.trials import MAIN
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class InstancesTask(Task):
    """Object detection and instance segmentation on `data`; `metric` is the kind of average precision."""

    name: ClassVar[str] = "instances"
    headline: ClassVar[str] = "detection/AP"
    mains: ClassVar[tuple[str, ...]] = MAIN

    data: DetectionData
    metric: ApKind

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def train_fingerprint(self) -> str:
        return self.data.train_fingerprint

    @property
    def test_fingerprint(self) -> str:
        return self.data.test_fingerprint

    @property
    def test_name(self) -> str:
        return self.data.test_split.name

    def describe(self) -> dict[str, Any]:
        return self.data.describe()

    def hold_out(self, fraction: float) -> InstancesTask:
        return InstancesTask(hold_out(self.data, fraction), self.metric)

    def identity(self) -> dict[str, Any]:
        """Without the task's name, which runs of earlier versions do not have."""
        identity = super().identity()
        del identity["task"]
        return identity

    def fit_settings(self, cfg: Any) -> None:
        from siamtransfer.detection.detectron2.catalog import register

        data = self.data
        if cfg.MODEL.MASK_ON and not data.has_masks:
            raise UserError(
                f"MODEL.MASK_ON is set and {data.train_splits[0].name} or {data.test_split.name} has boxes "
                "only; append MODEL.MASK_ON False"
            )
        train, test = register(data)
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train,), (test,)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = len(data.classes)
        cfg.INPUT.MASK_FORMAT = data.mask_format

    def train_loader(self, cfg: Any, sampler: Callable[[int], Any]) -> Any:
        from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts

        records = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )
        return build_detection_train_loader(cfg, dataset=records, sampler=sampler(len(records)))

    def test_loader(self, cfg: Any) -> Any:
        from detectron2.data import build_detection_test_loader

        return build_detection_test_loader(cfg, cfg.DATASETS.TEST[0])

    def collector(self, stop: StopSignal | None) -> Collector:
        from siamtransfer.detection.detectron2.prediction_collector import PredictionCollector

        return PredictionCollector(self.data, self.metric, stop)

    def __str__(self) -> str:
        return str(self.data)
