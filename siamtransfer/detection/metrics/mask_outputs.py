"""The metrics of predicted masks, and what a scored model leaves of them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamtransfer.detection.tasks.task import PICTURE
from siamtransfer.metrics.segmentation import PerImageCounts, SegmentationScores
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.segmentation.pictures import write_mask_pictures
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write

COUNTS = "counts.npz"
PICTURED = 8


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
