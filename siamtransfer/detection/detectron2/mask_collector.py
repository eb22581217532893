"""Counts the pixels of a model's predicted masks, image by image, and scores them.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from siamtransfer.detection.detectron2.stopping import leave_on_signal
from siamtransfer.detection.metrics.mask_outputs import SemanticOutputs, pictured, semantic_metrics
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.metrics.segmentation import PerImageCounts, count_image
from siamtransfer.segmentation.data.masked_images import MaskedImages


class MaskCollector(DatasetEvaluator):
    """Gathers the counts of all ranks; `stop`, where given, may end the program between two batches."""

    def __init__(self, test: MaskedImages, stop: StopSignal | None):
        self.test, self.stop = test, stop
        self.chosen = set(pictured(len(test)))
        self.reset()

    def reset(self) -> None:
        self.numbers: list[int] = []
        self.counts = PerImageCounts(len(self.test.classes))
        self.predictions: dict[int, np.ndarray] = {}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        leave_on_signal(self.stop)
        for image, output in zip(inputs, outputs, strict=True):
            prediction = output["sem_seg"].argmax(dim=0).cpu().numpy()
            matrix = count_image(prediction, image["mask"], self.counts.classes, self.test.ignore)
            self.counts.add(matrix)
            self.numbers.append(image["number"])
            if image["number"] in self.chosen:
                self.predictions[image["number"]] = prediction.astype(image["mask"].dtype)

    def evaluate(self) -> dict[str, float]:
        """The metrics in per cent on the main process, {} on the others."""
        comm.synchronize()
        of_ranks = comm.gather((self.numbers, self.counts.arrays(), self.predictions))
        if not comm.is_main_process():
            return {}
        self.counts = _in_order([(numbers, arrays) for numbers, arrays, _ in of_ranks])
        self.predictions = {number: mask for *_, some in of_ranks for number, mask in some.items()}
        return semantic_metrics(self.counts.scores(), self.test.classes)

    @property
    def outputs(self) -> SemanticOutputs:
        """The counts of all images, after `evaluate` on the main process."""
        return SemanticOutputs(self.test, self.counts, self.predictions)


def _in_order(parts: Sequence[tuple[Sequence[int], dict[str, np.ndarray]]]) -> PerImageCounts:
    """The counts of the ranks' images in the order of their numbers, each image once."""
    found = {}
    for numbers, arrays in parts:
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
