"""Panoptic data, opened by name or by path.

What names a split:
  coco_2017_train_panoptic_separated …   Detectron2's builtin names, below the root folder that holds coco
  PANOPTIC.json@IMAGES                   a file of COCO's panoptic task and the folder of its images
  fashion-scenes                         the embedded scenes; their background is the only stuff

Beside panoptic_NAME.json lies instances_NAME.json, and its PNGs lie in a folder panoptic_NAME beside it or
one folder higher.
"""

from __future__ import annotations

from pathlib import Path

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.detection.data.coco_files import CocoTask
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.panoptic_annotations import read_panoptic
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

PANOPTIC_NAMES = {
    f"coco_2017_{split}_panoptic_separated": (
        f"coco/annotations/panoptic_{split}2017.json",
        f"coco/{split}2017",
    )
    for split in ("train", "val")
}
_PREFIX = "panoptic"
PANOPTIC = CocoTask(
    "panoptic data",
    "coco-panoptic",
    "panoptic",
    PANOPTIC_NAMES,
    "PANOPTIC.json@IMAGES for a file of COCO's panoptic task",
)


def open_panoptic(name: str, role: str, root: Path, scenes: SceneCounts) -> DetectionSplit:
    """One split (a `SplitOpener`).

    Raises:
        UserError: the name is unknown, or a file is missing or broken.
    """
    annotations, images, name = PANOPTIC.find(name, role, root, scenes)
    if not annotations.name.startswith(_PREFIX):
        raise UserError(
            f"{printable(annotations)} is not called panoptic_….json, so the file of instances beside it is "
            "not known; give the files COCO's names"
        )
    instances = annotations.with_name("instances" + annotations.name.removeprefix(_PREFIX))
    return read_panoptic(instances, annotations, _folder_of_pngs(annotations, name), images, name)


def _folder_of_pngs(annotations: Path, name: str) -> Path:
    places = [folder / annotations.stem for folder in (annotations.parent, annotations.parent.parent)]
    for place in places:
        if place.is_dir():
            return place
    raise UserError(
        f"{name} needs the PNGs of {printable(annotations)} in the folder {printable(places[0])} or "
        f"{printable(places[1])}, and neither exists; unpack them there"
    )
