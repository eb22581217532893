"""Maps of features of images with masks, and patches that are drawn of them.

Legend: H and W pixels of an image, h and w cells of its map, D features, C classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.dense.model import DEFAULT_SIDE, DenseModel
from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.probe import Patches
from siamtransfer.evaluation.segmentation.shares import patch_shares
from siamtransfer.segmentation.data.masked_images import MaskedImages, read_pair
from siamtransfer.segmentation.data.registry import SCENES
from siamtransfer.segmentation.data.scenes import SIZE as SCENE_SIZE
from siamtransfer.utils.errors import UserError

DEFAULT_PATCHES = 100
"""Patches of an image, where the memory budget holds so many."""
_GIB = 2**30
_LEFT_OUT = -1  # label of a patch that is ignored


def open_model(config: SegmentationConfig, runtime: Runtime) -> DenseModel:
    """The backbone or the raw pixels that the options name; scenes are seen at their own size.

    Raises:
        UserError: see `DenseModel.open`.
    """
    side = (config.data.size or SCENE_SIZE) if config.data.name == SCENES else DEFAULT_SIDE
    return DenseModel.open(config, runtime, side=side, pixel_patch=config.pixel_patch)


def draw_patches(model: DenseModel, images: MaskedImages, config: SegmentationConfig) -> Patches:
    """Patches of all images with their classes, as many of each image as the options and their memory
    budget allow; which ones depends on the seed and the number of the image alone.

    Raises:
        UserError: an image or a mask cannot be read, no patch has a class, or the budget does not hold one
            patch an image.
    """
    classes = len(images.classes)
    store: _Store | None = None
    for index, features in model.maps(images, range(len(images))):
        _, mask = read_pair(images, index)
        height, width = features.shape[1:]
        store = store or _Store.of(len(images), features.shape[0], classes, config)
        labels = patch_labels(mask, (height, width), classes, images.ignore, config.patch_label)
        there = np.flatnonzero(labels.ravel() != _LEFT_OUT)
        if len(there) > store.per_image:
            generator = np.random.default_rng([config.seed, index])
            there = np.sort(generator.permutation(there)[: store.per_image])
        chosen = features.flatten(1).T[torch.from_numpy(there).to(features.device)]
        shares = patch_shares(mask, (height, width), classes, images.ignore)[there]
        store.add(chosen.cpu(), torch.from_numpy(labels.ravel()[there]), torch.from_numpy(shares), index)
    if store is None or not store.filled:
        raise UserError(
            f"no patch of {images.name}/{images.split} has a class: all are ignored; look at its masks"
        )
    return store.patches(images.classes)


class _Store:
    """Room for up to `per_image` patches of each image."""

    def __init__(self, images: int, dim: int, classes: int, per_image: int):
        self.per_image, self.filled = per_image, 0
        self._features = torch.empty(images * per_image, dim)
        self._shares = torch.empty(images * per_image, classes)
        self._labels = torch.empty(images * per_image, dtype=torch.int64)
        self._images = torch.empty(images * per_image, dtype=torch.int64)

    @classmethod
    def of(cls, images: int, dim: int, classes: int, config: SegmentationConfig) -> _Store:
        """As much room as the options allow."""
        bytes_each = images * 4 * (dim + classes)
        allowed = int(config.memory_budget * _GIB) // bytes_each
        wanted = config.patches_per_image
        if allowed < (wanted or 1):
            least = bytes_each * (wanted or 1) / _GIB
            raise UserError(
                f"--memory-budget {config.memory_budget:g} GiB does not hold {wanted or 1} patches of "
                f"{images} images with {dim} features, which take {least:.3g} GiB: raise it, or lower "
                "--patches-per-image or --data.count"
            )
        return cls(images, dim, classes, wanted or min(allowed, DEFAULT_PATCHES))

    def add(self, features: Tensor, labels: Tensor, shares: Tensor, image: int) -> None:
        part = slice(self.filled, self.filled + len(labels))
        self._features[part], self._labels[part], self._images[part] = features, labels, image
        self._shares[part] = shares
        self.filled += len(labels)

    def patches(self, classes: tuple[str, ...]) -> Patches:
        end = self.filled
        return Patches(
            self._features[:end], self._labels[:end], self._images[:end], classes, self._shares[:end]
        )


def patch_labels(
    mask: np.ndarray,
    cells: tuple[int, int],
    classes: int,
    ignore: int,
    rule: Literal["majority", "nearest"] = "majority",
) -> np.ndarray:
    """int64[h, w]: the class of every cell of a grid over mask[H, W]; -1 for an ignored cell.

    A pixel belongs to the cell that its centre lies in. By `majority` a cell has the most frequent value of
    its pixels, ignored being one; of equally frequent ones the lowest class. A cell without a pixel (the
    grid is finer than the mask) takes the pixel at its centre, as every cell does by `nearest`.
    """
    height, width = mask.shape
    h, w = cells
    truth = np.where(mask == ignore, classes, mask).astype(np.int64)
    rows = np.minimum(((np.arange(h) + 0.5) * height / h).astype(np.int64), height - 1)
    columns = np.minimum(((np.arange(w) + 0.5) * width / w).astype(np.int64), width - 1)
    labels = truth[rows[:, None], columns[None, :]]
    if rule == "majority":
        row = ((np.arange(height) + 0.5) * h / height).astype(np.int64)
        column = ((np.arange(width) + 0.5) * w / width).astype(np.int64)
        cell = row[:, None] * w + column[None, :]
        counts = np.bincount((cell * (classes + 1) + truth).ravel(), minlength=h * w * (classes + 1)).reshape(
            h, w, classes + 1
        )
        labels = np.where(counts.any(axis=2), counts.argmax(axis=2), labels)
    return np.where(labels == classes, _LEFT_OUT, labels)
