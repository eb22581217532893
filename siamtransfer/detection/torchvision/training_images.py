"""Training images and targets for torchvision's detectors.

Legend: n objects in an image of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from siamtransfer.detection.data.coco_masks import encoded
from siamtransfer.detection.data.dataset_split import ImageRecord, corners, read_image
from siamtransfer.detection.torchvision.model import as_input
from siamtransfer.detection.torchvision.recipe import DetectorRecipe
from siamtransfer.views.sampler import SampleKey

Sample = tuple[Tensor, dict[str, Tensor]]
"""An image float32[3, H, W] and its target: boxes float32[n, 4], labels int64[n], masks uint8[n, H, W]."""


def usable(record: ImageRecord) -> bool:
    """Whether an image has an object to learn from: one that is no crowd and has an area."""
    return any(_can_train(annotation, record) for annotation in record["annotations"])


class TrainingImages(Dataset[Sample]):
    """Images and targets as torchvision's detectors take them, half of them mirrored. An image without an
    object to learn from has an empty target: all of it is background.

    Which images are mirrored is a function of (seed, epoch, index).
    """

    def __init__(self, records: Sequence[ImageRecord], recipe: DetectorRecipe):
        self.records, self.masks, self.seed = records, recipe.design.masks, recipe.seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey) -> Sample:
        epoch, index = key
        record = self.records[index]
        annotations = [entry for entry in record["annotations"] if _can_train(entry, record)]
        image = as_input(read_image(record))
        clipped = [_clipped_box(entry, record) for entry in annotations]
        boxes = torch.tensor(clipped, dtype=torch.float32).reshape(-1, 4)
        labels = [entry["category_id"] + 1 for entry in annotations]
        target = {"labels": torch.tensor(labels, dtype=torch.int64)}
        if self.masks:
            target["masks"] = torch.from_numpy(_masks(annotations, record))
        if np.random.Generator(np.random.Philox([self.seed, epoch, index])).random() < 0.5:
            image = image.flip(2)
            boxes[:, [0, 2]] = record["width"] - boxes[:, [2, 0]]
            target = {name: value.flip(2) if name == "masks" else value for name, value in target.items()}
        return image, {"boxes": boxes, **target}


def _can_train(annotation: dict[str, Any], record: ImageRecord) -> bool:
    x0, y0, x1, y1 = _clipped_box(annotation, record)
    return not annotation.get("iscrowd", 0) and x1 > x0 and y1 > y0


def _clipped_box(annotation: dict[str, Any], record: ImageRecord) -> list[float]:
    """The box's corners x0, y0, x1, y1, clipped to the image."""
    x0, y0, x1, y1 = corners(annotation)
    width, height = record["width"], record["height"]
    return [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]


def _masks(annotations: Sequence[dict[str, Any]], record: ImageRecord) -> np.ndarray:
    """The objects' masks uint8[n, H, W]."""
    from pycocotools import mask as run_lengths

    size = record["height"], record["width"]
    if not annotations:
        return np.zeros((0, *size), np.uint8)
    masks = run_lengths.decode([encoded(annotation["segmentation"], *size) for annotation in annotations])
    return np.ascontiguousarray(masks.transpose(2, 0, 1))
