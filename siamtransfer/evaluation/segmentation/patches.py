"""Maps of features of images with masks, and patches that are drawn of them.

Legend: H and W pixels of an image, h and w cells of its map, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.dense.model import DEFAULT_SIDE, DenseModel
from siamtransfer.evaluation.dense.windows import View
from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.probe import Patches
from siamtransfer.evaluation.segmentation.shares import LEFT_OUT, patch_labels, patch_shares
from siamtransfer.segmentation.data.masked_images import MaskedImages, read_pair
from siamtransfer.segmentation.data.registry import SCENES
from siamtransfer.segmentation.data.scenes import SIZE as SCENE_SIZE
from siamtransfer.utils.errors import UserError

DEFAULT_PATCHES = 100
"""Patches of an image, where the memory budget holds so many."""
_GIB = 2**30


def open_model(config: SegmentationConfig, runtime: Runtime) -> DenseModel:
    """The backbone or the raw pixels that the options name; scenes are seen at their own size.

    Raises:
        UserError: see `DenseModel.open`.
    """
    side = (config.data.size or SCENE_SIZE) if config.data.name == SCENES else DEFAULT_SIDE
    window = (config.window, config.stride)
    return DenseModel.open(config, runtime, side=side, pixel_patch=config.pixel_patch, window=window)


def draw_patches(model: DenseModel, images: MaskedImages, config: SegmentationConfig) -> Patches:
    """Patches of all images with their classes, as many of each image as the options and their memory
    budget allow; which ones depends on the seed and the number of the image alone.

    Raises:
        UserError: an image or a mask cannot be read, no patch has a class, or the budget does not hold one
            patch an image.
    """
    classes = len(images.classes)
    store: _Store | None = None
    for index, views in model.views(images, range(len(images))):
        _, mask = read_pair(images, index)
        store = store or _Store.of(len(images), views[0].features.shape[0], classes, config)
        labels, shares = _classes_of(mask, views, images, config)
        there = np.flatnonzero(labels != LEFT_OUT)
        if len(there) > store.per_image:
            generator = np.random.default_rng([config.seed, index])
            there = np.sort(generator.permutation(there)[: store.per_image])
        rows = rows_of(views)
        chosen = rows[torch.from_numpy(there).to(rows.device)]
        store.add(chosen.cpu(), torch.from_numpy(labels[there]), torch.from_numpy(shares[there]), index)
    if store is None or not store.filled:
        raise UserError(
            f"no patch of {images.name}/{images.split} has a class: all are ignored; look at its masks"
        )
    return store.patches(images.classes)


def rows_of(views: Sequence[View]) -> Tensor:
    """float32[n, D]: the features of all cells of an image, view by view and row by row."""
    return torch.cat([view.features.flatten(1).T for view in views])


def grid_of(view: View) -> tuple[int, int]:
    """(h, w) of the map of a view."""
    return view.features.shape[1], view.features.shape[2]


def _classes_of(
    mask: np.ndarray, views: Sequence[View], images: MaskedImages, config: SegmentationConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64[n] and shares float32[n, C] of the cells in the order of `rows_of`."""
    classes, ignore = len(images.classes), images.ignore
    labels = [
        patch_labels(mask, grid_of(view), classes, ignore, config.patch_label, view.place).ravel()
        for view in views
    ]
    shares = [patch_shares(mask, grid_of(view), classes, ignore, view.place) for view in views]
    return np.concatenate(labels), np.concatenate(shares)


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
