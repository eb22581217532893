"""The two parts of a detection set, opened by name or by path and checked before any training.

What names a part:
  voc_2007_trainval, voc_2012_train …, coco_2017_train, coco_2014_val …   Detectron2's builtin names, below
      a root folder (DETECTRON2_DATASETS, else ./datasets) that holds VOC2007, VOC2012 and coco
  PATH:SPLIT                 a folder in Pascal VOC's layout and a list in its ImageSets/Main
  ANNOTATIONS.json@IMAGES    a file of COCO's instances and the folder of its images
  fashion-scenes             the embedded scenes, written once to the user's cache folder in either format
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from siamtransfer.data.imageset import first_few, printable
from siamtransfer.data.scenes.export import SceneCounts, write_coco, write_voc
from siamtransfer.data.scenes.objects import CLASSES, OBJECTS_SHA256
from siamtransfer.detection.data.coco_annotations import read_coco
from siamtransfer.detection.data.dataset_split import AnnotationFormat, DetectionSplit, Record
from siamtransfer.detection.data.voc_annotations import VOC_CLASSES, read_voc, splits
from siamtransfer.utils.errors import UserError

SCENES = "fashion-scenes"
VOC_NAMES = {
    f"voc_{year}_{split}": (f"VOC{year}", split)
    for year, found in ((2007, ("train", "val", "trainval", "test")), (2012, ("train", "val", "trainval")))
    for split in found
}
COCO_NAMES = {
    f"coco_{year}_{split}": (f"coco/annotations/instances_{split}{year}.json", f"coco/{split}{year}")
    for year in (2014, 2017)
    for split in ("train", "val")
}


@dataclass(frozen=True, eq=False)
class DetectionData:
    """A train and a test part with the same classes; the train part may consist of several.

    train, test: records (part.py); classes: names by category_id.
    """

    train_splits: tuple[DetectionSplit, ...]
    test_split: DetectionSplit

    @property
    def train(self) -> list[Record]:
        return [record for part in self.train_splits for record in part.records]

    @property
    def test(self) -> list[Record]:
        return self.test_split.records

    @property
    def classes(self) -> tuple[str, ...]:
        return self.test_split.classes

    @property
    def has_masks(self) -> bool:
        """Whether every object of both parts has a mask."""
        return all(
            "segmentation" in annotation
            for part in (*self.train_splits, self.test_split)
            for annotation in part.annotations
        )

    @property
    def mask_format(self) -> Literal["polygon", "bitmask"]:
        """Detectron2's INPUT.MASK_FORMAT: bitmask when an object that trains has run lengths."""
        runs = any(
            isinstance(annotation.get("segmentation"), dict) and not annotation["iscrowd"]
            for part in self.train_splits
            for annotation in part.annotations
        )
        return "bitmask" if runs else "polygon"

    @property
    def train_fingerprint(self) -> str:
        return "+".join(part.fingerprint for part in self.train_splits)

    @property
    def test_fingerprint(self) -> str:
        return self.test_split.fingerprint

    def describe(self) -> dict[str, Any]:
        """What was found, for a result's protocol: names, counts, classes, remarks."""
        return {
            "train": [_describe(part) for part in self.train_splits],
            "test": _describe(self.test_split),
            "classes": len(self.classes),
            "masks": self.has_masks,
            "remarks": self.remarks(),
        }

    def remarks(self) -> list[str]:
        """Oddities that are no errors, one sentence each."""
        found = [
            f"{part.name}: {remark}"
            for part in (*self.train_splits, self.test_split)
            for remark in part.remarks
        ]
        files = {record["file_name"] for record in self.train}
        if both := sum(record["file_name"] in files for record in self.test):
            found.append(f"{both} of the {len(self.test)} test images are training images too")
        present = {annotation["category_id"] for annotation in self.test_split.annotations}
        absent = [label for number, label in enumerate(self.classes) if number not in present]
        if absent:
            found.append(f"{self.test_split.name}: no object of the class {first_few(absent)}")
        return found

    def __str__(self) -> str:
        lines = [
            f"{role:6} {part.name}: {len(part.records):,} images, {len(part.annotations):,} objects"
            for role, part in [*(("train", part) for part in self.train_splits), ("test", self.test_split)]
        ]
        masks = "with masks" if self.has_masks else "boxes only"
        return "\n".join([*lines, f"{len(self.classes)} classes, {masks}", *self.remarks()])


def open_detection_data(
    train: str | Sequence[str],
    test: str,
    *,
    root: str | Path | None = None,
    kind: AnnotationFormat = "coco",
    scenes: SceneCounts | None = None,
) -> DetectionData:
    """Opens and checks both parts.

    train, test: see above; several train parts as a sequence or joined by +, as in
    voc_2007_trainval+voc_2012_trainval. root: the folder of the builtin names. kind and scenes: format,
    number and size of the Fashion Scenes.

    Raises:
        UserError: a name is unknown, a file is missing or broken, or the parts do not belong together.
    """
    names = train.split("+") if isinstance(train, str) else list(train)
    place = Path(root or os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()
    if not names:
        raise UserError("there is no train part; name one, such as voc_2007_trainval")
    counts = scenes or SceneCounts()
    parts: list[DetectionSplit] = []
    for name in names:
        parts.append(_open(name, "train", place, kind, counts, parts[0] if parts else None))
    test_split = _open(test, "test", place, kind, counts, parts[0])
    for part in (*parts[1:], test_split):
        if part.classes != parts[0].classes:
            raise UserError(
                f"{part.name} has the classes {first_few(list(part.classes))} and {parts[0].name} has "
                f"{first_few(list(parts[0].classes))}; give parts with the same classes"
            )
    if not any(part.annotations for part in parts):
        raise UserError(f"{parts[0].name} has no object to learn from; give a part with annotations")
    return DetectionData(tuple(parts), test_split)


def register(data: DetectionData) -> tuple[str, str]:
    """Makes both parts known to Detectron2's catalogs and returns their names there.

    The names come from the fingerprints, so registering the same data again changes nothing.

    Raises:
        UserError: Detectron2 is absent.
    """
    from siamtransfer.detection.detectron2.compat import import_detectron2

    import_detectron2()
    from detectron2.data import DatasetCatalog, MetadataCatalog

    names = []
    for role, prints, records in (
        ("train", data.train_fingerprint, data.train),
        ("test", data.test_fingerprint, data.test),
    ):
        name = f"siamtransfer_{role}_{prints.replace('+', '_')[:24]}"
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.pop(name)
        DatasetCatalog.register(name, lambda records=records: in_detectron2(records))
        MetadataCatalog.get(name).set(thing_classes=list(data.classes))
        names.append(name)
    return names[0], names[1]


def in_detectron2(records: Sequence[Record]) -> list[Record]:
    """The records with box modes of Detectron2's own type; the originals stay as they are."""
    from detectron2.structures import BoxMode

    return [
        record
        | {
            "annotations": [
                annotation | {"bbox_mode": BoxMode(annotation["bbox_mode"])}
                for annotation in record["annotations"]
            ]
        }
        for record in records
    ]


def _open(
    name: str,
    role: str,
    root: Path,
    kind: AnnotationFormat,
    scenes: SceneCounts,
    first: DetectionSplit | None,
) -> DetectionSplit:
    """One part; classes that a VOC folder does not declare are those of the `first` part."""
    if name == SCENES:
        return _open_scenes(role, kind, scenes)
    if name in VOC_NAMES:
        folder, split = VOC_NAMES[name]
        return read_voc(root / folder, split, name, VOC_CLASSES)
    if name in COCO_NAMES:
        annotations, images = COCO_NAMES[name]
        return read_coco(root / annotations, root / images, name)
    if "@" in name:
        annotations, images = name.rsplit("@", 1)
        return read_coco(Path(annotations).expanduser(), Path(images).expanduser(), name)
    path, colon, split = name.rpartition(":")
    if colon:
        known = first.classes if first and first.kind == "voc" else None
        return read_voc(Path(path).expanduser(), split, name, known)
    raise _unknown(name)


def _open_scenes(role: str, kind: AnnotationFormat, scenes: SceneCounts) -> DetectionSplit:
    folder = _written(kind, scenes)
    name = f"{SCENES}/{role}"
    if kind == "voc":
        return read_voc(folder, "trainval" if role == "train" else "test", name, CLASSES)
    part = "train" if role == "train" else "val"
    return read_coco(folder / "annotations" / f"instances_{part}.json", folder / part, name)


def _written(kind: AnnotationFormat, scenes: SceneCounts) -> Path:
    """The folder of the scenes in the user's cache, written now unless it is there."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"{kind}-{scenes.train}-{scenes.test}-{scenes.size}-{scenes.seed}-{OBJECTS_SHA256[:12]}"
    folder = home / "siamtransfer" / "scenes" / name
    if not folder.exists():
        try:
            {"voc": write_voc, "coco": write_coco}[kind](folder, scenes)
        except UserError:
            if not folder.exists():  # else another process was faster, and what it wrote is the same
                raise
    return folder


def _unknown(name: str) -> UserError:
    path = Path(name).expanduser()
    if path.is_dir():
        lists = first_few(splits(path))
        cure = f"give {name}:SPLIT with one of its lists {lists}" if lists else "give ANNOTATIONS.json@IMAGES"
        return UserError(f"{printable(path)} is a folder without a split; {cure}")
    if name.endswith(".json"):
        return UserError(f"{name} says nothing of its images; give {name}@FOLDER with the folder they are in")
    return UserError(
        f"{name!r} names no detection data; take {SCENES}, one of {', '.join([*VOC_NAMES, *COCO_NAMES])}, "
        "PATH:SPLIT for a folder in VOC's layout or ANNOTATIONS.json@IMAGES for COCO's"
    )


def _describe(part: DetectionSplit) -> dict[str, Any]:
    return {
        "name": part.name,
        "format": part.kind,
        "images": len(part.records),
        "objects": len(part.annotations),
        "fingerprint": part.fingerprint,
    }
