"""Detectron2's loaders over images with masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.detection.data.joined_masks import JoinedMasks
from siamtransfer.detection.tasks.task import TrainingOrder
from siamtransfer.segmentation.data.masked_images import MaskedImages, read_pair
from siamtransfer.segmentation.random_crop import CropRecipe, random_crop, resize_image, scaled_size
from siamtransfer.utils.errors import UserError


class TrainingCrops:
    """The mapper of training images: the number of an image to `image` uint8[3,h,w] and `sem_seg` int64[h,w].

    Its random numbers come from torch's generator, which the trainer seeds for every step.
    """

    def __init__(self, cfg: Any, sets: Sequence[MaskedImages]):
        self.images = JoinedMasks(sets)
        self.bgr = cfg.INPUT.FORMAT == "BGR"
        mean = np.array(cfg.MODEL.PIXEL_MEAN[::-1] if self.bgr else cfg.MODEL.PIXEL_MEAN)
        self.fill = mean.round().clip(0, 255).astype(np.uint8)
        self.recipe = crop_recipe(cfg)

    def __len__(self) -> int:
        return len(self.images)

    def __call__(self, number: int) -> dict[str, Any]:
        image, mask = self.images.pair(number)
        generator = np.random.default_rng(int(torch.randint(2**31, ())))
        image, mask = random_crop(image, mask, self.images.ignore, self.fill, self.recipe, generator)
        return {"image": _planes(image, self.bgr), "sem_seg": torch.from_numpy(mask.astype(np.int64))}


def crop_recipe(cfg: Any) -> CropRecipe:
    """How training images are made, from INPUT.MASKS and INPUT.RANDOM_FLIP.

    Raises:
        UserError: a value is out of range.
    """
    if cfg.INPUT.RANDOM_FLIP not in ("none", "horizontal"):
        raise UserError(
            f"INPUT.RANDOM_FLIP is {cfg.INPUT.RANDOM_FLIP!r}; masks are mirrored by horizontal or none"
        )
    keys = cfg.INPUT.MASKS
    return CropRecipe(
        tuple(keys.CROP),
        tuple(keys.SCALES),
        keys.SHORT_SIDE,
        keys.LONG_SIDE,
        keys.MOST_OF_ONE_CLASS,
        cfg.INPUT.RANDOM_FLIP != "none",
        keys.COLOUR,
    )


class TestImages:
    """The mapper of test images: a number to `image` uint8[3,h,w] of the test size, the whole `mask`[H,W],
    `number`, and H and W as `height` and `width`, to which Detectron2 brings its prediction."""

    def __init__(self, cfg: Any, images: MaskedImages):
        self.images, self.bgr = images, cfg.INPUT.FORMAT == "BGR"
        self.sides = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST if cfg.INPUT.MIN_SIZE_TEST else 0

    def __call__(self, number: int) -> dict[str, Any]:
        image, mask = read_pair(self.images, number)
        resized = resize_image(image, scaled_size(mask.shape, *self.sides))
        height, width = mask.shape
        return {
            "image": _planes(resized, self.bgr),
            "mask": mask,
            "number": number,
            "height": height,
            "width": width,
        }


def _planes(image: np.ndarray, bgr: bool) -> Tensor:
    """uint8[H,W,3] RGB as uint8[3,H,W] in the channel order of the model."""
    ordered = image[..., ::-1] if bgr else image
    return torch.from_numpy(np.ascontiguousarray(ordered.transpose(2, 0, 1)))


def train_loader(cfg: Any, sets: Sequence[MaskedImages], order: TrainingOrder) -> Any:
    """Batches of training crops for ever, in the shuffled order of `order`."""
    from detectron2.data import build_detection_train_loader

    mapper = TrainingCrops(cfg, sets)
    return build_detection_train_loader(
        list(range(len(mapper))),
        mapper=mapper,
        sampler=order.shuffled(len(mapper)),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=False,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def test_loader(cfg: Any, images: MaskedImages) -> Any:
    """Every test image once, one in a batch, divided among the ranks."""
    from detectron2.data import build_detection_test_loader

    return build_detection_test_loader(
        list(range(len(images))), mapper=TestImages(cfg, images), num_workers=cfg.DATALOADER.NUM_WORKERS
    )
