"""Counts the pixels of predicted masks, image by image, on one rank or on several.

Legend: H x W pixels of a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from siamtransfer.detection.metrics.mask_outputs import SemanticOutputs, pictured
from siamtransfer.metrics.segmentation import PerImageCounts, count_image
from siamtransfer.segmentation.data.masked_images import MaskedImages

RankCounts = tuple[Sequence[int], dict[str, np.ndarray], Mapping[int, np.ndarray]]
"""What a rank has counted: the numbers of its images, the arrays of their counts, masks for the picture."""


class MaskCounter:
    """The counts of the images of `test` that a rank has scored, and the masks of those that are drawn."""

    def __init__(self, test: MaskedImages):
        self.test = test
        self._chosen = set(pictured(len(test)))
        self._numbers: list[int] = []
        self._counts = PerImageCounts(len(test.classes))
        self._predictions: dict[int, np.ndarray] = {}

    def add(self, number: int, prediction: np.ndarray, mask: np.ndarray) -> None:
        """Counts image `number` by its predicted classes[H,W] and its mask[H,W]."""
        self._counts.add(count_image(prediction, mask, self._counts.classes, self.test.ignore))
        self._numbers.append(number)
        if number in self._chosen:
            self._predictions[number] = prediction.astype(mask.dtype)

    def of_rank(self) -> RankCounts:
        """What this rank has counted, to be sent to others."""
        return self._numbers, self._counts.arrays(), self._predictions

    def joined(self, of_ranks: Sequence[RankCounts]) -> SemanticOutputs:
        """The counts of all ranks in the order of the images, each image once."""
        predictions = {number: mask for *_, some in of_ranks for number, mask in some.items()}
        return SemanticOutputs(self.test, _in_order(of_ranks), predictions)


def _in_order(parts: Sequence[RankCounts]) -> PerImageCounts:
    """The counts of the ranks' images in the order of their numbers, each image once."""
    found = {}
    for numbers, arrays, _ in parts:
        for place, number in enumerate(numbers):
            found[number] = arrays, int(arrays["ends"][place]), int(arrays["ends"][place + 1])
    ordered = [found[number] for number in sorted(found)]
    lengths = [end - start for _, start, end in ordered]
    columns = {
        name: np.concatenate([arrays[name][start:end] for arrays, start, end in ordered])
        for name in ("class", "intersection", "prediction", "truth")
    }
    return PerImageCounts.from_arrays(
        {"classes": parts[0][1]["classes"], "ends": np.cumsum([0, *lengths]), **columns}
    )
