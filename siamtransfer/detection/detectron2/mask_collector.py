"""Counts the pixels of a model's predicted masks, image by image, and scores them.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from siamtransfer.detection.detectron2.stopping import leave_on_signal
from siamtransfer.detection.metrics.mask_counter import MaskCounter
from siamtransfer.detection.metrics.mask_outputs import SemanticOutputs, semantic_metrics
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.segmentation.data.masked_images import MaskedImages


class MaskCollector(DatasetEvaluator):
    """Gathers the counts of all ranks; `stop`, where given, may end the program between two batches."""

    outputs: SemanticOutputs
    """The counts of all images, after `evaluate` on the main process."""

    def __init__(self, test: MaskedImages, stop: StopSignal | None):
        self.test, self.stop = test, stop
        self.reset()

    def reset(self) -> None:
        self.counter = MaskCounter(self.test)

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        leave_on_signal(self.stop)
        for image, output in zip(inputs, outputs, strict=True):
            prediction = output["sem_seg"].argmax(dim=0).cpu().numpy()
            self.counter.add(image["number"], prediction, image["mask"])

    def evaluate(self) -> dict[str, float]:
        """The metrics in per cent on the main process, {} on the others."""
        comm.synchronize()
        of_ranks = comm.gather(self.counter.of_rank())
        if not comm.is_main_process():
            return {}
        self.outputs = self.counter.joined(of_ranks)
        return semantic_metrics(self.outputs.counts.scores(), self.test.classes)
