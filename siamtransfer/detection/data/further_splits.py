"""Splits of Cityscapes and of LVIS, opened by name or by path.

What names a split:
  cityscapes_fine_instance_seg_train, lvis_v1_val …   Detectron2's builtin names, below the root folder that
      holds cityscapes, lvis and coco
  cityscapes:SPLIT                leftImg8bit/SPLIT and gtFine/SPLIT below the root folder itself
  lvis:ANNOTATIONS.json@IMAGES    a file of LVIS and the folder that holds train2017 and val2017
"""

from __future__ import annotations

from pathlib import Path

from siamtransfer.data.scenes.export import COCO_SPLITS, SceneCounts
from siamtransfer.detection.data.cityscapes_annotations import read_cityscapes
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.lvis_annotations import read_lvis
from siamtransfer.detection.data.written_scenes import SCENES, written_scenes
from siamtransfer.utils.errors import UserError

CITYSCAPES, LVIS = "cityscapes", "lvis"
CITYSCAPES_NAMES = {f"cityscapes_fine_instance_seg_{split}": split for split in ("train", "val")}
LVIS_NAMES = {
    f"lvis_{version}_{split}": f"lvis/lvis_{version}_{split}.json"
    for version in ("v0.5", "v1")
    for split in ("train", "val")
}


def open_further_split(name: str, root: Path, first: DetectionSplit | None) -> DetectionSplit | None:
    """The split that `name` stands for; None where it names neither Cityscapes nor LVIS.

    first: the first split to train on, whose classes a split of LVIS takes.

    Raises:
        UserError: the name is incomplete, or a file is missing or broken.
    """
    kind, _, rest = name.partition(":")
    if name in CITYSCAPES_NAMES:
        return read_cityscapes(root / CITYSCAPES, CITYSCAPES_NAMES[name], name)
    if kind == CITYSCAPES:
        return read_cityscapes(root, rest, name)
    if name in LVIS_NAMES:
        return read_lvis(root / LVIS_NAMES[name], root / "coco", name, first)
    if kind == LVIS:
        annotations, at, images = rest.rpartition("@")
        if not at:
            raise UserError(
                f"{name} says nothing of its images; give lvis:ANNOTATIONS.json@IMAGES with the folder that "
                "holds train2017 and val2017"
            )
        return read_lvis(Path(annotations).expanduser(), Path(images).expanduser(), name, first)
    return None


def open_further_scenes(
    kind: str, role: str, scenes: SceneCounts, first: DetectionSplit | None
) -> DetectionSplit | None:
    """The Fashion Scenes in the format `kind`; None where that is neither Cityscapes' nor LVIS's."""
    name, split = f"{SCENES}/{role}", COCO_SPLITS[role]
    if kind == CITYSCAPES:
        return read_cityscapes(written_scenes("cityscapes", scenes), split, name)
    if kind == LVIS:
        folder = written_scenes("lvis", scenes)
        return read_lvis(folder / LVIS_NAMES[f"lvis_v1_{split}"], folder / "coco", name, first)
    return None
