"""Several sets of images with masks, one behind the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from siamtransfer.segmentation.data.masked_images import MaskedImages, read_pair


class JoinedMasks:
    """The images of `sets`, which have the same classes and the same ignored value."""

    def __init__(self, sets: Sequence[MaskedImages]):
        self.sets = tuple(sets)
        self.ignore = self.sets[0].ignore
        self._ends = list(accumulate(map(len, self.sets)))

    def __len__(self) -> int:
        return self._ends[-1]

    def pair(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8[H,W,3] and mask[H,W] of this number, see `read_pair`."""
        which = bisect_right(self._ends, number)
        images = self.sets[which]
        return read_pair(images, number - (self._ends[which] - len(images)))
