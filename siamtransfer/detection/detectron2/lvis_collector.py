"""Scores detections by Detectron2's evaluator of LVIS, which calls the data set's own package.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from codecs import BOM_UTF8
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.evaluation import LVISEvaluator

from siamtransfer.detection.data.dataset_packages import import_lvis
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.detectron2.pictured_images import PicturedEvaluator, PicturedImages
from siamtransfer.detection.metrics.score_predictions import IOU_TYPES
from siamtransfer.distributed.signals import StopSignal

UNDEFINED = -100.0  # per cent; the package has -1 where no object belongs to a metric


class LvisCollector(PicturedEvaluator, LVISEvaluator):
    """Keeps the detections of all ranks and scores them against the test images' annotations.

    `stop`, where given, may end the program between two batches.
    """

    def __init__(self, data: DetectionData, stop: StopSignal | None):
        import_lvis()
        self.data, self.stop = data, stop
        with tempfile.TemporaryDirectory(prefix="lvis_truth_") as folder:
            super().__init__(_register(data.test_split, Path(folder)))
        self.pictures = PicturedImages(data)

    def evaluate(self) -> dict[str, float]:
        """The metrics in per cent on the main process, {} on the others."""
        self.pictures.gather()
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints its table
            results = super().evaluate() or {}
        return {
            f"{name}/{metric}": math.nan if value == UNDEFINED else value
            for name, iou_type in IOU_TYPES.items()
            for metric, value in results.get(iou_type, {}).items()
        }


def _register(split: DetectionSplit, folder: Path) -> str:
    """Registers the metadata that the evaluator reads; returns the name in Detectron2's catalog."""
    name = f"siamtransfer_lvis_{split.fingerprint[:24]}"
    MetadataCatalog.pop(name, None)
    MetadataCatalog.get(name).set(
        json_file=str(_truth(split, folder)),
        thing_classes=list(split.classes),
        thing_dataset_id_to_contiguous_id={key: number for number, key in enumerate(split.category_ids)},
    )
    return name


def _truth(split: DetectionSplit, folder: Path) -> Path:
    """The file of the split; where its images are a part of the file's, one in `folder` with these only."""
    assert split.source is not None
    data = split.source.read_bytes()
    content = json.loads(data)
    kept = {record["image_id"] for record in split.records}
    marked = data.startswith(BOM_UTF8)  # the package does not take this mark
    if len(kept) == len(content["images"]) and not marked:
        return split.source
    content["images"] = [image for image in content["images"] if image["id"] in kept]
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept]
    path = folder / "part.json"
    path.write_text(json.dumps(content))
    return path
