"""Semantic segmentation, scored by the mean intersection over union at the size of the masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from siamtransfer.detection.data.semantic_data import SemanticData, set_name
from siamtransfer.detection.metrics.mask_outputs import read_counts
from siamtransfer.detection.tasks.task import Collector, Task, TrainingOrder
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.metrics.segmentation_intervals import difference_interval, interval

_NAMES = {"miou": "mIoU", "pixel_accuracy": "pixel_accuracy", "mean_accuracy": "mean_accuracy"}


@dataclass(frozen=True, eq=False)
class SemanticTask(Task):
    """A class for every pixel of the images of `data`."""

    name: ClassVar[str] = "semantic"
    evaluation: ClassVar[str] = "semantic-segmentation"
    headline: ClassVar[str] = "semantic/mIoU"
    mains: ClassVar[tuple[str, ...]] = ("semantic/mIoU", "semantic/pixel_accuracy", "semantic/mean_accuracy")

    data: SemanticData
    metric: str = (
        "mIoU over all pixels, at the size of the masks; classes in no truth and no prediction left out"
    )

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def train_fingerprint(self) -> str:
        return self.data.train_fingerprint

    @property
    def test_fingerprint(self) -> str:
        return self.data.test.fingerprint

    @property
    def test_name(self) -> str:
        return set_name(self.data.test)

    def describe(self) -> dict[str, Any]:
        return self.data.describe()

    def hold_out(self, fraction: float) -> SemanticTask:
        return SemanticTask(self.data.hold_out(fraction), self.metric)

    def image_intervals(self, folders: Sequence[Path]) -> dict[str, float]:
        counts = [read_counts(folder) for folder in folders]
        found = {"": interval(counts[0])}
        if len(counts) == 2:
            found["compare/"] = difference_interval(counts[1], counts[0])
        return {
            f"{prefix}semantic/{_NAMES[metric]}/images_{end}": 100 * value
            for prefix, of_metrics in found.items()
            for metric, ends in of_metrics.items()
            for end, value in zip(("low", "high"), ends, strict=True)
        }

    def fit_settings(self, cfg: Any) -> None:
        from siamtransfer.detection.detectron2.masked_loaders import crop_recipe

        crop_recipe(cfg)  # refuses values out of range before anything is written
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("train",), ("test",)  # the loaders below open none by name
        head = cfg.MODEL.SEM_SEG_HEAD
        head.NUM_CLASSES, head.IGNORE_VALUE = len(self.classes), self.data.test.ignore

    def train_loader(self, cfg: Any, order: TrainingOrder) -> Any:
        from siamtransfer.detection.detectron2.masked_loaders import train_loader

        return train_loader(cfg, self.data.train, order)

    def test_loader(self, cfg: Any) -> Any:
        from siamtransfer.detection.detectron2.masked_loaders import test_loader

        return test_loader(cfg, self.data.test)

    def collector(self, stop: StopSignal | None) -> Collector:
        from siamtransfer.detection.detectron2.mask_collector import MaskCollector

        return MaskCollector(self.data.test, stop)

    def __str__(self) -> str:
        return str(self.data)
