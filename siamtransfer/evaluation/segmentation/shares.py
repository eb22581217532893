"""The classes of the patches of a mask: one each, or the share of each class in the pixels of a patch.

The shares are soft labels, and the ceiling of a grid of patches.

Legend: H and W pixels, h and w patches, C classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from siamtransfer.evaluation.dense.windows import Place
from siamtransfer.evaluation.segmentation.cells import Cells
from siamtransfer.metrics.segmentation import refuse_values

LEFT_OUT = -1
"""Label of a patch that is ignored."""


def patch_shares(
    mask: np.ndarray, grid: tuple[int, int], classes: int, ignore: int = 255, place: Place | None = None
) -> np.ndarray:
    """float32[h * w, C]: the share of each class in the counted pixels of a patch; rows sum to 1, or are all
    0 where every pixel is ignored.

    A pixel belongs to the patch that its centre lies in, so the mask is not resized; a patch without a pixel
    (the grid is finer than the mask) takes the one at its centre. As scores of the patches of the image
    itself, these are the ceiling of the grid: what a probe reaches that knows every patch.

    Args:
        mask: integers[H, W], classes from 0 to C - 1 and `ignore`.
        grid: h and w.
        place: of the patches in the image, as a part of the network's input; None: all of it.

    Raises:
        UserError: a value is neither a class nor `ignore`.
    """
    h, w = grid
    cells = Cells.of((mask.shape[0], mask.shape[1]), grid, place)
    block = mask[cells.pixels]
    counted = block != ignore
    refuse_values(block[counted], classes, "a mask")
    pairs = cells.of_pixels[counted] * classes + block[counted]
    counts = np.bincount(pairs, minlength=h * w * classes).reshape(h * w, classes)
    empty = np.bincount(cells.of_pixels.ravel(), minlength=h * w) == 0
    if empty.any():
        values = mask[cells.centres].ravel()
        patches = np.flatnonzero(empty & (values != ignore))
        counts[patches, values[patches]] = 1
    totals = counts.sum(axis=1, keepdims=True)
    return (counts / np.maximum(totals, 1)).astype(np.float32)


def patch_labels(
    mask: np.ndarray,
    grid: tuple[int, int],
    classes: int,
    ignore: int,
    rule: Literal["majority", "nearest"] = "majority",
    place: Place | None = None,
) -> np.ndarray:
    """int64[h, w]: the class of every patch; LEFT_OUT for an ignored one.

    By `majority` a patch has the most frequent value of its pixels, ignored being one; of equally frequent
    ones the lowest class. A patch without a pixel (the grid is finer than the mask) takes the pixel at its
    centre, as every patch does by `nearest`. See `patch_shares` for the arguments.
    """
    h, w = grid
    cells = Cells.of((mask.shape[0], mask.shape[1]), grid, place)
    truth = np.where(mask == ignore, classes, mask).astype(np.int64)
    labels = truth[cells.centres]
    if rule == "majority":
        pairs = cells.of_pixels * (classes + 1) + truth[cells.pixels]
        counts = np.bincount(pairs.ravel(), minlength=h * w * (classes + 1)).reshape(h, w, classes + 1)
        labels = np.where(counts.any(axis=2), counts.argmax(axis=2), labels)
    return np.where(labels == classes, LEFT_OUT, labels)
