"""Train and test data for detection, opened by name or by path and checked before any training.

What names a split:
  voc_2007_trainval, voc_2012_train …, coco_2017_train, coco_2014_val …   Detectron2's builtin names, below
      a root folder (DETECTRON2_DATASETS, else ./datasets) that holds VOC2007, VOC2012 and coco
  PATH:SPLIT                 a folder in Pascal VOC's layout and a list in its ImageSets/Main
  ANNOTATIONS.json@IMAGES    a file of COCO's instances and the folder of its images
  fashion-scenes             the embedded scenes, written once to the user's cache folder in any format
Names of Cityscapes and of LVIS are in further_splits.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.detection.data.coco_annotations import read_coco
from siamtransfer.detection.data.dataset_split import (
    AnnotationFormat,
    DetectionSplit,
    ImageRecord,
    Skeleton,
)
from siamtransfer.detection.data.further_splits import (
    CITYSCAPES_NAMES,
    LVIS_NAMES,
    open_further_scenes,
    open_further_split,
)
from siamtransfer.detection.data.voc_annotations import VOC_CLASSES, read_voc, splits
from siamtransfer.detection.data.written_scenes import SCENES, written_scenes
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

VOC_NAMES = {
    f"voc_{year}_{split}": (f"VOC{year}", split)
    for year, names in ((2007, ("train", "val", "trainval", "test")), (2012, ("train", "val", "trainval")))
    for split in names
}
COCO_NAMES = {
    f"coco_{year}_{split}": (f"coco/annotations/instances_{split}{year}.json", f"coco/{split}{year}")
    for year in (2014, 2017)
    for split in ("train", "val")
}
NAMES = (*VOC_NAMES, *COCO_NAMES, *CITYSCAPES_NAMES, *LVIS_NAMES)

SplitOpener = Callable[[str, str, Path, SceneCounts], DetectionSplit]
"""Opens a split by name, role (train or test), the root folder and the counts of the Fashion Scenes."""


@dataclass(frozen=True, eq=False)
class DetectionData:
    """One or several splits to train on and one to test on, with the same classes."""

    train_splits: tuple[DetectionSplit, ...]
    test_split: DetectionSplit

    @property
    def train(self) -> list[ImageRecord]:
        """The records to train on, of all splits."""
        return [record for split in self.train_splits for record in split.records]

    @property
    def test(self) -> list[ImageRecord]:
        """The records to test on."""
        return self.test_split.records

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by category_id."""
        return self.test_split.classes

    @property
    def skeleton(self) -> Skeleton | None:
        """The keypoints of every object, where they were read."""
        return self.test_split.skeleton

    @property
    def stuff(self) -> tuple[str, ...]:
        """The names of the classes without objects, of panoptic data."""
        return self.test_split.stuff

    @property
    def has_masks(self) -> bool:
        """Whether every object has a mask."""
        return all(
            "segmentation" in annotation
            for split in (*self.train_splits, self.test_split)
            for annotation in split.annotations
        )

    def without_masks(self) -> str | None:
        """The first part with an object that has no mask, and which object that is, as the begin of a
        sentence; None where every object has one."""
        for split in (*self.train_splits, self.test_split):
            bare = [
                (number, record["file_name"])
                for record in split.records
                for number, annotation in enumerate(record["annotations"])
                if "segmentation" not in annotation
            ]
            if bare and len(bare) == len(split.annotations):
                return f"{split.name} has boxes only"
            if bare:
                number, image = bare[0]
                return (
                    f"{len(bare):,} of the {len(split.annotations):,} objects of {split.name} have no mask, "
                    f"object {number} (counted from 0) of {printable(image)} for one"
                )
        return None

    @property
    def mask_format(self) -> Literal["polygon", "bitmask"]:
        """Detectron2's INPUT.MASK_FORMAT: bitmask when an object to train on has run lengths."""
        runs = any(
            isinstance(annotation.get("segmentation"), dict) and not annotation["iscrowd"]
            for split in self.train_splits
            for annotation in split.annotations
        )
        return "bitmask" if runs else "polygon"

    @property
    def train_fingerprint(self) -> str:
        """Of annotations and images to train on."""
        return "+".join(split.fingerprint for split in self.train_splits)

    @property
    def test_fingerprint(self) -> str:
        """Of annotations and images to test on."""
        return self.test_split.fingerprint

    def describe(self) -> dict[str, Any]:
        """For a record's protocol: names, counts, classes, remarks."""
        return {
            "train": [_describe(split) for split in self.train_splits],
            "test": _describe(self.test_split),
            "classes": len(self.classes),
            "masks": self.has_masks,
            **({"keypoints": list(self.skeleton.names)} if self.skeleton else {}),
            **({"stuff": len(self.stuff)} if self.stuff else {}),
            "remarks": self.remarks(),
        }

    def remarks(self) -> list[str]:
        """Oddities that are no errors, one sentence each."""
        remarks = [
            f"{split.name}: {remark}"
            for split in (*self.train_splits, self.test_split)
            for remark in split.remarks
        ]
        files = {record["file_name"] for record in self.train}
        if both := sum(record["file_name"] in files for record in self.test):
            remarks.append(f"{both} of the {len(self.test)} test images are training images too")
        present = {annotation["category_id"] for annotation in self.test_split.annotations}
        absent = [label for number, label in enumerate(self.classes) if number not in present]
        if absent:
            remarks.append(f"{self.test_split.name}: no object of the class {first_few(absent)}")
        return remarks

    def __str__(self) -> str:
        lines = [
            f"{role:6} {split.name}: {len(split.records):,} images, {len(split.annotations):,} objects"
            for role, split in [*(("train", split) for split in self.train_splits), ("test", self.test_split)]
        ]
        masks = "with masks" if self.has_masks else "boxes only"
        more = [f"{len(self.skeleton.names)} keypoints"] if self.skeleton else []
        more += [f"{len(self.stuff)} classes of stuff"] if self.stuff else []
        contents = ", ".join([f"{len(self.classes)} classes", masks, *more])
        return "\n".join([*lines, contents, *self.remarks()])


def open_detection_data(
    train: str | Sequence[str],
    test: str,
    *,
    root: str | Path | None = None,
    kind: AnnotationFormat = "coco",
    scenes: SceneCounts | None = None,
    opener: SplitOpener | None = None,
) -> DetectionData:
    """Opens and checks the data.

    train, test: names as above; several splits to train on as a sequence or joined by +, as in
    voc_2007_trainval+voc_2012_trainval. root: the folder of the builtin names. kind and scenes: format,
    number and size of the Fashion Scenes. opener: opens a split of other names and contents than those above.

    Raises:
        UserError: a name is unknown, a file is missing or broken, or the splits do not have the same classes.
    """
    names = train.split("+") if isinstance(train, str) else list(train)
    folder = Path(root or os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()
    if not names:
        raise UserError("there is no train part; name one, such as voc_2007_trainval")
    counts = scenes or SceneCounts()
    opened: list[DetectionSplit] = []
    for name, role in (*((name, "train") for name in names), (test, "test")):
        if opener is not None:
            opened.append(opener(name, role, folder, counts))
        else:
            opened.append(_open(name, role, folder, kind, counts, opened[0] if opened else None))
    *train_splits, test_split = opened
    first = train_splits[0]
    for split in opened[1:]:
        _check_same_classes(split, first)
    if not any(split.annotations for split in train_splits):
        raise UserError(f"{first.name} has no object to learn from; give a part with annotations")
    return DetectionData(tuple(train_splits), test_split)


def _check_same_classes(split: DetectionSplit, first: DetectionSplit) -> None:
    keypoints = [of.skeleton.names if of.skeleton else () for of in (split, first)]
    for what, ours, theirs in (
        ("classes", split.classes, first.classes),
        ("classes of stuff", split.stuff, first.stuff),
        ("keypoints", *keypoints),
    ):
        if ours != theirs:
            raise UserError(
                f"{split.name} has the {what} {first_few(list(ours))} and {first.name} has "
                f"{first_few(list(theirs))}; give parts with the same {what}"
            )


def _open(
    name: str,
    role: str,
    root: Path,
    kind: AnnotationFormat,
    scenes: SceneCounts,
    first: DetectionSplit | None,
) -> DetectionSplit:
    """One split; a VOC folder declares no classes and takes those of the `first` split, if that is VOC's."""
    if name == SCENES:
        return _open_scenes(role, kind, scenes, first)
    further = open_further_split(name, root, first)
    if further is not None:
        return further
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


def _open_scenes(
    role: str, kind: AnnotationFormat, scenes: SceneCounts, first: DetectionSplit | None
) -> DetectionSplit:
    further = open_further_scenes(kind, role, scenes, first)
    if further is not None:
        return further
    name = f"{SCENES}/{role}"
    if kind == "voc":
        folder = written_scenes("voc", scenes)
        return read_voc(folder, "trainval" if role == "train" else "test", name, CLASSES)
    folder, split = written_scenes("coco", scenes), "train" if role == "train" else "val"
    return read_coco(folder / "annotations" / f"instances_{split}.json", folder / split, name)


def _unknown(name: str) -> UserError:
    path = Path(name).expanduser()
    if path.is_dir():
        lists = first_few(splits(path))
        cure = f"give {name}:SPLIT with one of its lists {lists}" if lists else "give ANNOTATIONS.json@IMAGES"
        return UserError(f"{printable(path)} is a folder without a split; {cure}")
    if name.endswith(".json"):
        return UserError(f"{name} says nothing of its images; give {name}@FOLDER with the folder they are in")
    return UserError(
        f"{name!r} names no detection data; take {SCENES}, one of {', '.join(NAMES)}, "
        "PATH:SPLIT for a folder in VOC's layout or ANNOTATIONS.json@IMAGES for COCO's"
    )


def _describe(split: DetectionSplit) -> dict[str, Any]:
    return {
        "name": split.name,
        "format": split.kind,
        "images": len(split.records),
        "objects": len(split.annotations),
        "fingerprint": split.fingerprint,
    }
