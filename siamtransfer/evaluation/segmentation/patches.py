"""Maps of features of images with masks, and patches that are drawn of them.

Legend: H and W pixels of an image, h and w cells of its map, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.dense.model import DEFAULT_SIDE, DenseModel
from siamtransfer.evaluation.dense.windows import View
from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.probe import Patches
from siamtransfer.evaluation.segmentation.shares import LEFT_OUT, patch_labels, patch_shares
from siamtransfer.features.progress import PassProgress
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

    Ranks share the images, and each gets the patches of all.

    Raises:
        UserError: an image or a mask cannot be read, no patch has a class, or the budget does not hold one
            patch an image; where one rank raises, all do.
    """
    with collectives.own_pace("drawing patches"):
        store = _draw_share(model, images, config)
    if model.runtime.world_size > 1:
        store = _gather(store, len(images), model.runtime.device)
    if store is None or not store.filled:
        raise UserError(
            f"no patch of {images.name}/{images.split} has a class: all are ignored; look at its masks"
        )
    return store.patches(images.classes)


def _draw_share(model: DenseModel, images: MaskedImages, config: SegmentationConfig) -> _Store | None:
    """The patches of the images rank, rank + world_size, …; None where there is no such image."""
    store: _Store | None = None
    runtime, classes = model.runtime, len(images.classes)
    mine = range(runtime.rank, len(images), runtime.world_size)
    progress = PassProgress(f"{images.name}/{images.split}", len(images), shown=runtime.is_main)
    for done, (index, views) in enumerate(model.views(images, mine), 1):
        _, mask = read_pair(images, index)
        if store is None:
            dim = views[0].features.shape[0]
            store = _Store(len(mine), dim, classes, patches_of_an_image(len(images), dim, classes, config))
        labels, shares = _classes_of(mask, views, images, config)
        there = np.flatnonzero(labels != LEFT_OUT)
        if len(there) > store.per_image:
            generator = np.random.default_rng([config.seed, index])
            there = np.sort(generator.permutation(there)[: store.per_image])
        rows = rows_of(views)
        chosen = rows[torch.from_numpy(there).to(rows.device)]
        store.add(chosen.cpu(), torch.from_numpy(labels[there]), torch.from_numpy(shares[there]), index)
        progress.done(done * runtime.world_size)
    return store


def _gather(mine: _Store | None, images: int, device: torch.device) -> _Store:
    """The patches that all ranks drew, in the order of the images, a block at a time."""
    shape = collectives.broadcast_object(None if mine is None else mine.shape)
    assert shape is not None  # rank 0 has image 0
    store = _Store(images, *shape)
    dim, per_image = store.shape[0], store.per_image
    share = None if mine is None else mine.padded()
    index = 0
    for block in collectives.gather_blocks(share, images, device):
        for image in block.cpu().view(len(block), per_image, -1):
            there = image[image[:, 0] != LEFT_OUT]
            store.add(there[:, 1 : 1 + dim], there[:, 0].long(), there[:, 1 + dim :], index)
            index += 1
    return store


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


def patches_of_an_image(images: int, dim: int, classes: int, config: SegmentationConfig) -> int:
    """How many patches of each image the options and their memory budget allow.

    Raises:
        UserError: fewer than the options ask for, or none.
    """
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
    return wanted or min(allowed, DEFAULT_PATCHES)


class _Store:
    """Room for up to `per_image` patches of each of `images` images.

    Attributes:
        shape: features, classes and patches of an image.
        filled: the number of patches in it.
    """

    def __init__(self, images: int, dim: int, classes: int, per_image: int):
        self.shape, self.per_image, self.filled = (dim, classes, per_image), per_image, 0
        self._features = torch.empty(images * per_image, dim)
        self._shares = torch.empty(images * per_image, classes)
        self._labels = torch.empty(images * per_image, dtype=torch.int64)
        self._images = torch.empty(images * per_image, dtype=torch.int64)
        self._ends: list[int] = []

    def add(self, features: Tensor, labels: Tensor, shares: Tensor, image: int) -> None:
        """Adds the patches of an image: float32[n, D], int64[n] and float32[n, C]."""
        part = slice(self.filled, self.filled + len(labels))
        self._features[part], self._labels[part], self._images[part] = features, labels, image
        self._shares[part] = shares
        self.filled += len(labels)
        self._ends.append(self.filled)

    def padded(self) -> Tensor:
        """float32[images, per_image * (1 + D + C)]: label, features and shares of every patch of an image;
        the label is LEFT_OUT where an image has fewer patches."""
        dim, classes, per_image = self.shape
        rows = torch.zeros(len(self._ends), per_image, 1 + dim + classes)
        rows[:, :, 0] = LEFT_OUT
        begin = 0
        for row, end in zip(rows, self._ends, strict=True):
            part, count = slice(begin, end), end - begin
            row[:count, 0] = self._labels[part]
            row[:count, 1 : 1 + dim] = self._features[part]
            row[:count, 1 + dim :] = self._shares[part]
            begin = end
        return rows.flatten(1)

    def patches(self, classes: tuple[str, ...]) -> Patches:
        """All patches, without a copy."""
        end = self.filled
        return Patches(
            self._features[:end], self._labels[:end], self._images[:end], classes, self._shares[:end]
        )
