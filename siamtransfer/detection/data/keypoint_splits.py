"""Objects with keypoints, opened by name or by path.

What names a split:
  keypoints_coco_2017_train …   Detectron2's builtin names, below the root folder that holds coco
  ANNOTATIONS.json@IMAGES       a file of COCO's keypoints and the folder of its images
  fashion-scenes                the embedded scenes, with the outermost points of every object
"""

from __future__ import annotations

from pathlib import Path

from siamtransfer.data.scenes.export import COCO_SPLITS, SceneCounts
from siamtransfer.detection.data.coco_annotations import read_coco
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.written_scenes import SCENES, written_scenes
from siamtransfer.utils.errors import UserError

KEYPOINT_NAMES = {
    f"keypoints_coco_{year}_{split}": (
        f"coco/annotations/person_keypoints_{split}{year}.json",
        f"coco/{split}{year}",
    )
    for year in (2014, 2017)
    for split in ("train", "val")
}


def open_keypoints(name: str, role: str, root: Path, scenes: SceneCounts) -> DetectionSplit:
    """One split (a `SplitOpener`).

    Raises:
        UserError: the name is unknown, or a file is missing or broken.
    """
    if name == SCENES:
        folder, split = written_scenes("coco-keypoints", scenes), COCO_SPLITS[role]
        annotations, images = folder / "annotations" / f"person_keypoints_{split}.json", folder / split
        name = f"{SCENES}/{role}"
    elif name in KEYPOINT_NAMES:
        annotations, images = (root / part for part in KEYPOINT_NAMES[name])
    elif "@" in name:
        annotations, images = (Path(part).expanduser() for part in name.rsplit("@", 1))
    else:
        raise UserError(
            f"{name!r} names no data with keypoints; take {SCENES}, one of {', '.join(KEYPOINT_NAMES)}, or "
            "ANNOTATIONS.json@IMAGES for a file of COCO's keypoints"
        )
    return read_coco(annotations, images, name, keypoints=True)
