"""Patches of the train images with their depths.

Legend: n patches, D features, H and W pixels, h and w patches of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from siamtransfer.evaluation.dense.model import DenseModel
from siamtransfer.evaluation.depth.config import DepthConfig
from siamtransfer.evaluation.depth.data.depth_images import DepthImages
from siamtransfer.metrics.depth import DepthRange
from siamtransfer.utils.errors import UserError

DEFAULT_PATCHES = 100
"""Patches of an image, where the memory budget holds so many."""
LEAST_KNOWN = 0.5
"""A patch counts if this share of its pixels has a depth."""
_GIB = 2**30


@dataclass(frozen=True, eq=False)
class DepthPatches:
    """Sampled patches of a split.

    Attributes:
        features: float32[n, D], on the CPU.
        targets: float64[n]: the mean over a patch's pixels of the depth in metres, or of its logarithm.
        images: int64[n], the index of the image of each patch, rising.
    """

    features: Tensor
    targets: Tensor
    images: Tensor


def patch_means(values: np.ndarray, counted: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """float64[h * w]: the mean of values[H, W] over the pixels of each patch that are counted[H, W]; NaN
    for a patch of which less than LEAST_KNOWN is counted.

    A pixel belongs to the patch that its centre lies in. A patch without a pixel (the grid is finer than the
    image) is NaN.
    """
    (height, width), (h, w) = values.shape, grid
    rows = (2 * np.arange(height) + 1) * h // (2 * height)
    columns = (2 * np.arange(width) + 1) * w // (2 * width)
    cells = rows[:, None] * w + columns
    known = np.bincount(cells[counted], minlength=h * w)
    sums = np.bincount(cells[counted], values[counted].astype(np.float64), h * w)
    pixels = np.bincount(cells.ravel(), minlength=h * w)
    enough = (known > 0) & (known >= LEAST_KNOWN * pixels)
    return np.where(enough, sums / np.maximum(known, 1), np.nan)


def draw_patches(
    model: DenseModel, images: DepthImages, depths: DepthRange, config: DepthConfig
) -> DepthPatches:
    """Patches of all images with their depths, as many of each image as the options and their memory budget
    allow; which ones depends on the seed and the number of the image alone.

    Raises:
        UserError: an image or a depth map cannot be read, no patch has a depth, or the budget does not hold
            one patch an image.
    """
    features: list[Tensor] = []
    targets: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    most = 0
    for index, found in model.maps(images, range(len(images))):
        grid = (found.shape[1], found.shape[2])
        most = most or _patches_of_an_image(len(images), len(found), config)
        depth = images.depth(index)
        counted = depths.valid(depth)
        values = np.log(np.where(counted, depth, 1)) if config.target == "log" else depth
        means = patch_means(values, counted, grid)
        there = np.flatnonzero(np.isfinite(means))
        if len(there) > most:
            there = np.sort(np.random.default_rng([config.seed, index]).permutation(there)[:most])
        chosen = torch.from_numpy(there).to(found.device)
        features.append(found.flatten(1)[:, chosen].T.contiguous().cpu())
        targets.append(means[there])
        owners.append(np.full(len(there), index, np.int64))
    if not sum(map(len, targets)):
        raise UserError(
            f"no patch of {images.name}/{images.split} has a depth in at least half of its pixels: take a "
            f"larger --size or an earlier layer, whose patches are smaller"
        )
    return DepthPatches(
        torch.cat(features),
        torch.from_numpy(np.concatenate(targets)),
        torch.from_numpy(np.concatenate(owners)),
    )


def _patches_of_an_image(images: int, dim: int, config: DepthConfig) -> int:
    """How many patches of an image the options and the memory allow; the features are held twice for a
    moment."""
    bytes_each = 2 * images * 4 * dim
    allowed, wanted = int(config.memory_budget * _GIB) // bytes_each, config.patches_per_image
    if allowed < (wanted or 1):
        least = bytes_each * (wanted or 1) / _GIB
        raise UserError(
            f"--memory-budget {config.memory_budget:g} GiB does not hold {wanted or 1} patches of "
            f"{images} images with {dim} features, which take {least:.3g} GiB: raise it, or lower "
            f"--patches-per-image or --data.count"
        )
    return wanted or min(allowed, DEFAULT_PATCHES)
