"""Semantic segmentation, scored by the mean intersection over union at the size of the masks."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from siamtransfer.detection.data.semantic_data import SemanticData, set_name
from siamtransfer.detection.tasks.task import PICTURE, Collector, Task
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.metrics.segmentation import PerImageCounts, SegmentationScores
from siamtransfer.metrics.segmentation_intervals import difference_interval, interval
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.segmentation.pictures import write_mask_pictures
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write

COUNTS = "counts.npz"
PICTURED = 8
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
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("train",), ("test",)  # the loaders below open none by name
        head = cfg.MODEL.SEM_SEG_HEAD
        head.NUM_CLASSES, head.IGNORE_VALUE = len(self.classes), self.data.test.ignore

    def train_loader(self, cfg: Any, sampler: Callable[[int], Any]) -> Any:
        from siamtransfer.detection.detectron2.masked_loaders import train_loader

        return train_loader(cfg, self.data.train, sampler)

    def test_loader(self, cfg: Any) -> Any:
        from siamtransfer.detection.detectron2.masked_loaders import test_loader

        return test_loader(cfg, self.data.test)

    def collector(self, stop: StopSignal | None) -> Collector:
        from siamtransfer.detection.detectron2.mask_collector import MaskCollector

        return MaskCollector(self.data.test, stop)

    def __str__(self) -> str:
        return str(self.data)


def semantic_metrics(scores: SegmentationScores, classes: tuple[str, ...]) -> dict[str, float]:
    """The named metrics of a task, in per cent; NaN for a class without truth and prediction."""
    values = {
        "semantic/mIoU": scores.miou,
        "semantic/pixel_accuracy": scores.pixel_accuracy,
        "semantic/mean_accuracy": scores.mean_accuracy,
        "semantic/frequency_weighted_IoU": scores.frequency_weighted_iou,
    }
    values |= {
        f"semantic/IoU/{label}": float(value) for label, value in zip(classes, scores.per_class, strict=True)
    }
    return {name: 100 * value for name, value in values.items()}


def read_counts(folder: Path) -> PerImageCounts:
    """The counts of the test images that a trial has left in its folder.

    Raises:
        UserError: they are missing or damaged.
    """
    path = folder / COUNTS
    try:
        with np.load(path) as arrays:
            return PerImageCounts.from_arrays(arrays)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); score the trial again by --eval-only") from error


def pictured(images: int) -> list[int]:
    """The numbers of the test images whose predictions are drawn, at equal distances."""
    return np.unique(np.linspace(0, images - 1, min(PICTURED, images)).round().astype(int)).tolist()


@dataclass(frozen=True, eq=False)
class SemanticOutputs:
    """counts.npz with the counts of every test image, in the order of the set, and a picture.

    test: the images; predictions: the number of an image to its predicted mask[H,W], for those of `pictured`.
    """

    test: MaskedImages
    counts: PerImageCounts
    predictions: Mapping[int, np.ndarray]

    def write(self, folder: Path) -> None:
        with atomic_write(folder / COUNTS) as file:
            np.savez_compressed(file, **self.counts.arrays())  # type: ignore[arg-type]
        triples = [
            (self.test.image(number), self.test.mask(number), prediction)
            for number, prediction in sorted(self.predictions.items())
        ]
        write_mask_pictures(folder / PICTURE, triples, self.test.classes, self.test.ignore)
