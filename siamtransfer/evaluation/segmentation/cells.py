"""Which pixels of a mask lie in which cell of a map of features.

Legend: H and W pixels of a mask, h and w cells of a map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from siamtransfer.evaluation.dense.windows import Place


class Cells(NamedTuple):
    """The cells of a map over a mask; the mask is not resized.

    A pixel belongs to the cell that its centre lies in.

    Attributes:
        pixels: the pixels that lie in a cell, as an index of a mask[H, W]; one block.
        of_pixels: int64 of the shape of that block, the number of the cell of each of them, from 0 and row by
            row.
        centres: rows int64[h, 1] and columns int64[w], the pixels in which the centres of the cells lie.
    """

    pixels: tuple[slice, slice]
    of_pixels: np.ndarray
    centres: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, size: tuple[int, int], grid: tuple[int, int], place: Place | None = None) -> Cells:
        """The cells of a map of `grid` (h, w) over a mask of `size` (H, W).

        `place` is where the map's input lies in the image's; None: it is the whole image.
        """
        there = place or Place.whole(1, 1)
        (height, width), (h, w) = size, grid
        top, rows = _cells(height, h, (there.top, there.bottom, there.height))
        left, columns = _cells(width, w, (there.left, there.right, there.width))
        return cls(
            (slice(top, top + len(rows)), slice(left, left + len(columns))),
            rows[:, None] * w + columns,
            (
                _centres(height, h, (there.top, there.bottom, there.height))[:, None],
                _centres(width, w, (there.left, there.right, there.width)),
            ),
        )


def _cells(pixels: int, cells: int, span: tuple[int, int, int]) -> tuple[int, np.ndarray]:
    """The first of `pixels` that lies in one of the cells, and the cell int64[n] of each one from there.

    The cells divide the part `span` (start, stop, whole) of the length. All is exact in integers.
    """
    start, stop, whole = span
    centres = (2 * np.arange(pixels, dtype=np.int64) + 1) * whole - 2 * pixels * start
    found = centres * cells // (2 * pixels * (stop - start))
    inside = np.flatnonzero((found >= 0) & (found < cells))
    return (int(inside[0]), found[inside]) if len(inside) else (0, found[:0])


def _centres(pixels: int, cells: int, span: tuple[int, int, int]) -> np.ndarray:
    """int64[cells]: the pixel in which the centre of each cell lies."""
    start, stop, whole = span
    centres = 2 * cells * start + (2 * np.arange(cells, dtype=np.int64) + 1) * (stop - start)
    return centres * pixels // (2 * cells * whole)
