"""Counts the segments that a panoptic model predicts, image by image, and scores them; and its detections.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.utils import comm

from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.data.panoptic_pngs import SEGMENT_FILE, SEGMENTS, read_segment_ids
from siamtransfer.detection.detectron2.prediction_collector import PredictionCollector
from siamtransfer.detection.metrics.mask_outputs import pictured
from siamtransfer.detection.metrics.panoptic_outputs import PanopticOutputs, class_map
from siamtransfer.detection.metrics.panoptic_quality import count_segments, panoptic_metrics
from siamtransfer.distributed.signals import StopSignal


class PanopticCollector(PredictionCollector):
    """A `PredictionCollector` that counts segments too. Of an image only counts stay in memory."""

    def __init__(self, data: DetectionData, stop: StopSignal | None):
        super().__init__(data, "coco", stop)
        self.numbers = {record["image_id"]: number for number, record in enumerate(data.test)}
        self.chosen = set(pictured(len(data.test)))
        self.things = len(data.classes)
        self.counts: dict[int, np.ndarray] = {}
        self.maps: dict[int, np.ndarray] = {}

    def reset(self) -> None:
        super().reset()
        self.counts, self.maps = {}, {}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        super().process(inputs, outputs)
        for image, output in zip(inputs, outputs, strict=True):
            number = self.numbers[image["image_id"]]
            record = self.data.test[number]
            ids, listed = output["panoptic_seg"]
            predicted, segments = ids.cpu().numpy(), [self._numbered(segment) for segment in listed]
            self.counts[number] = count_segments(
                read_segment_ids(record[SEGMENT_FILE]),
                record[SEGMENTS],
                predicted,
                segments,
                self.things + len(self.data.stuff),
            )
            if number in self.chosen:
                self.maps[number] = class_map(predicted, segments)

    def _numbered(self, segment: dict[str, Any]) -> dict[str, int]:
        """The id and the class of a segment; Detectron2 counts stuff from 1, with 0 for all things."""
        number = segment["category_id"] if segment["isthing"] else self.things + segment["category_id"] - 1
        return {"id": segment["id"], "category_id": number}

    def evaluate(self) -> dict[str, float]:
        comm.synchronize()
        of_ranks = comm.gather((self.counts, self.maps))
        for counts, maps in of_ranks:  # empty on other ranks than the first
            self.counts |= counts
            self.maps |= maps
        return super().evaluate()

    def score(self) -> dict[str, float]:
        classes = (*self.data.classes, *self.data.stuff)
        return panoptic_metrics(self._in_order(), classes, self.things) | super().score()

    def _in_order(self) -> np.ndarray:
        return np.stack([self.counts[number] for number in sorted(self.counts)])

    @property
    def outputs(self) -> PanopticOutputs:  # type: ignore[override]
        """The counts of all images, after `evaluate` on the main process."""
        return PanopticOutputs(self.data, self._in_order(), self.maps)
