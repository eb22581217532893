"""The layouts in which the scenes are written as files for detection, and who writes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from siamtransfer.data.scenes.export import SceneCounts, write_coco, write_voc
from siamtransfer.data.scenes.export_cityscapes import write_cityscapes
from siamtransfer.data.scenes.export_coco_tasks import write_coco_keypoints, write_coco_panoptic
from siamtransfer.data.scenes.export_lvis import write_lvis

SceneLayout = Literal["voc", "coco", "coco-keypoints", "coco-panoptic", "cityscapes", "lvis"]
WRITERS: Mapping[str, Callable[[Path, SceneCounts], Any]] = {
    "voc": write_voc,
    "coco": write_coco,
    "coco-keypoints": write_coco_keypoints,
    "coco-panoptic": write_coco_panoptic,
    "cityscapes": write_cityscapes,
    "lvis": write_lvis,
}
