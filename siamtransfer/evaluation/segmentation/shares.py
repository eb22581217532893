"""The share of each class in the pixels of every patch: soft labels, and the ceiling of a grid of patches.

Legend: H and W pixels, h and w patches, C classes.
"""

from __future__ import annotations

import numpy as np

from siamtransfer.metrics.segmentation import refuse_values


def patch_shares(mask: np.ndarray, grid: tuple[int, int], classes: int, ignore: int = 255) -> np.ndarray:
    """float32[h * w, C]: the share of each class in the counted pixels of a patch; rows sum to 1, or are all
    0 where every pixel is ignored.

    A pixel belongs to the patch that its centre lies in, so the mask is not resized; a patch without a pixel
    (the grid is finer than the mask) takes the one at its centre. As scores of the patches of the image
    itself, these are the ceiling of the grid: what a probe reaches that knows every patch.

    Args:
        mask: integers[H, W], classes from 0 to C - 1 and `ignore`.
        grid: h and w.

    Raises:
        UserError: a value is neither a class nor `ignore`.
    """
    (height, width), (h, w) = mask.shape, grid
    counted = mask != ignore
    refuse_values(mask[counted], classes, "a mask")
    cells = _cells(height, h)[:, None] * w + _cells(width, w)
    pairs = cells[counted] * classes + mask[counted]
    counts = np.bincount(pairs, minlength=h * w * classes).reshape(h * w, classes)
    if h > height or w > width:
        _fill_empty(counts, np.bincount(cells.ravel(), minlength=h * w) == 0, mask, grid, ignore)
    totals = counts.sum(axis=1, keepdims=True)
    return (counts / np.maximum(totals, 1)).astype(np.float32)


def _cells(pixels: int, cells: int) -> np.ndarray:
    """int64[pixels]: the cell that the centre of each pixel lies in."""
    return (2 * np.arange(pixels) + 1) * cells // (2 * pixels)


def _fill_empty(
    counts: np.ndarray, empty: np.ndarray, mask: np.ndarray, grid: tuple[int, int], ignore: int
) -> None:
    """Counts the pixel at the centre of every patch that is `empty`, bool[h * w]."""
    rows, columns = (_cells(cells, pixels) for cells, pixels in zip(grid, mask.shape, strict=True))
    values = mask[rows[:, None], columns].ravel()
    patches = np.flatnonzero(empty & (values != ignore))
    counts[patches, values[patches]] = 1
