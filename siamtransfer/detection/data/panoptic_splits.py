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

from siamtransfer.data.scenes.export import COCO_SPLITS, SceneCounts
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.panoptic_annotations import read_panoptic
from siamtransfer.detection.data.written_scenes import SCENES, written_scenes
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


def open_panoptic(name: str, role: str, root: Path, scenes: SceneCounts) -> DetectionSplit:
    """One split (a `SplitOpener`).

    Raises:
        UserError: the name is unknown, or a file is missing or broken.
    """
    if name == SCENES:
        folder, split = written_scenes("coco-panoptic", scenes), COCO_SPLITS[role]
        annotations, images = folder / "annotations" / f"panoptic_{split}.json", folder / split
        name = f"{SCENES}/{role}"
    elif name in PANOPTIC_NAMES:
        annotations, images = (root / part for part in PANOPTIC_NAMES[name])
    elif "@" in name:
        annotations, images = (Path(part).expanduser() for part in name.rsplit("@", 1))
    else:
        raise UserError(
            f"{name!r} names no panoptic data; take {SCENES}, one of {', '.join(PANOPTIC_NAMES)}, or "
            "PANOPTIC.json@IMAGES for a file of COCO's panoptic task"
        )
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
