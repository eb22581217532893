"""Objects with keypoints, opened by name or by path.

What names a split:
  keypoints_coco_2017_train …   Detectron2's builtin names, below the root folder that holds coco
  ANNOTATIONS.json@IMAGES       a file of COCO's keypoints and the folder of its images
  fashion-scenes                the embedded scenes, with the outermost points of every object
"""

from __future__ import annotations

from pathlib import Path

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.detection.data.coco_annotations import read_coco
from siamtransfer.detection.data.coco_files import CocoTask
from siamtransfer.detection.data.dataset_split import DetectionSplit

KEYPOINT_NAMES = {
    f"keypoints_coco_{year}_{split}": (
        f"coco/annotations/person_keypoints_{split}{year}.json",
        f"coco/{split}{year}",
    )
    for year in (2014, 2017)
    for split in ("train", "val")
}
KEYPOINTS = CocoTask(
    "data with keypoints",
    "coco-keypoints",
    "person_keypoints",
    KEYPOINT_NAMES,
    "ANNOTATIONS.json@IMAGES for a file of COCO's keypoints",
)


def open_keypoints(name: str, role: str, root: Path, scenes: SceneCounts) -> DetectionSplit:
    """One split (a `SplitOpener`).

    Raises:
        UserError: the name is unknown, or a file is missing or broken.
    """
    annotations, images, name = KEYPOINTS.find(name, role, root, scenes)
    return read_coco(annotations, images, name, keypoints=True)
