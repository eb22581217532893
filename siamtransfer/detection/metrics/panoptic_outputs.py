"""What a scored panoptic model leaves beside its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.detection.data.dataset_split import read_image
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.data.panoptic_pngs import SEGMENT_FILE, SEGMENTS, read_segment_ids
from siamtransfer.detection.metrics.panoptic_quality import write_counts
from siamtransfer.detection.tasks.task import PICTURE
from siamtransfer.segmentation.pictures import write_mask_pictures

IGNORE = 65535  # of a map of classes: void, and the lines between segments


@dataclass(frozen=True, eq=False)
class PanopticOutputs:
    """panoptic_counts.npz with the counts[N,C,4] of every test image, in their order, and a picture.

    maps: the number of an image to its predicted map of classes (`class_map`), for some.
    """

    data: DetectionData
    counts: np.ndarray
    maps: Mapping[int, np.ndarray]

    def write(self, folder: Path) -> None:
        write_counts(folder, self.counts)
        triples = []
        for number, predicted in sorted(self.maps.items()):
            record = self.data.test[number]
            truth = class_map(read_segment_ids(record[SEGMENT_FILE]), record[SEGMENTS])
            triples.append((read_image(record), truth, predicted))
        write_mask_pictures(folder / PICTURE, triples, (*self.data.classes, *self.data.stuff), IGNORE)


def class_map(ids: np.ndarray, segments: list[dict[str, Any]]) -> np.ndarray:
    """uint16[H,W]: the class of every pixel's segment; IGNORE for void and where two segments meet."""
    classes = np.full(ids.shape, IGNORE, np.uint16)
    for segment in segments:
        classes[ids == segment["id"]] = segment["category_id"]
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    classes[:, 1:][across] = IGNORE
    classes[1:][down] = IGNORE
    return classes
