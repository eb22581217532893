"""Reads a folder in Pascal VOC's layout: Annotations/, JPEGImages/ and ImageSets/Main/SPLIT.txt.

Source of the format: the VOC2007 development kit (Everingham et al., IJCV 2010). Boxes there count pixels
from 1 and include both corners; here they are continuous coordinates from 0, so the first corner loses one,
as in Detectron2. Objects flagged `difficult` train like all others (Detectron2 does so) and are left out of
VOC's evaluation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siamtransfer.data.voc_files import NamedFiles, read_names, refuse_unreadable_name
from siamtransfer.data.voc_xml import VocObject, number_in, objects_of, read_annotation, size_of
from siamtransfer.detection.data.dataset_split import (
    XYXY,
    DetectionSplit,
    ImageRecord,
    check_box,
    check_images,
    count_oddities,
)
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc(folder: Path, split: str, name: str, classes: Sequence[str] | None = None) -> DetectionSplit:
    """The images that ImageSets/Main/SPLIT.txt lists, in its order.

    `classes` are the names that may occur; None: those that do occur, sorted. `name` is for messages.

    Raises:
        UserError: a file is missing or broken; names it and the cure.
    """
    names = _listed(folder, split, name)
    files = _Folder(folder, folder / "ImageSets" / "Main" / f"{split}.txt")
    parsed = [files.read(image) for image in names]
    if classes is None:
        classes = sorted({item["name"] for record in parsed for item in record["annotations"]})
    numbers = {label: number for number, label in enumerate(classes)}
    for record in parsed:
        for item in record["annotations"]:
            label = item.pop("name")
            if label not in numbers:
                raise UserError(
                    f"{printable(files.annotation(record['image_id']))} has an object of the class "
                    f"{label!r}, which is none of {first_few(list(classes))}; mend it or train on "
                    "a part that has the class"
                )
            item["category_id"] = numbers[label]
    sizes = check_images(parsed, name)
    files.digest.update(repr((names, sizes)).encode())
    remarks = (*count_oddities(parsed), *files.remarks())
    return DetectionSplit(name, "voc", parsed, tuple(classes), files.digest.hexdigest(), remarks)


def splits(folder: Path) -> list[str]:
    """The splits that a folder lists (not VOC's lists of one class, such as cat_train)."""
    lists = folder / "ImageSets" / "Main"
    return sorted(path.stem for path in lists.glob("*.txt") if "_" not in path.stem)


def _listed(folder: Path, split: str, name: str) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    for needed in ("Annotations", "JPEGImages", "ImageSets/Main"):
        if not (folder / needed).is_dir():
            raise UserError(
                f"{name} needs the folder {printable(folder / needed)}, which does not exist; give a folder "
                "in VOC's layout, or point DETECTRON2_DATASETS at the folder that holds VOC2007 and VOC2012"
            )
    if not path.exists():
        raise UserError(
            f"{name} needs the list {printable(path)}, which does not exist; the folder has "
            f"{first_few(splits(folder)) or 'no lists'}"
        )
    return read_names(path)


class _Folder:
    """The annotations and the images of the names that the list `listed` has.

    Attributes:
        digest: of the annotations that were read.
        strangers: the annotations that say in <filename> that they are of another image.
    """

    def __init__(self, folder: Path, listed: Path):
        self.listed, self.digest, self.strangers = listed, hashlib.sha256(), list[str]()
        self._annotations = NamedFiles(folder / "Annotations", "xml", {"xml"})
        self._images = NamedFiles(folder / "JPEGImages", "jpg")

    def annotation(self, image: str) -> Path:
        """The file of the annotation of an image."""
        return self._annotations[image]

    def read(self, image: str) -> ImageRecord:
        """The record of an image; its objects have the class's name under `name` instead of category_id.

        Raises:
            UserError: the annotation is missing or wrong; names it and the cure.
        """
        path, off = self.annotation(image), f"take {printable(image)} off the list"
        refuse_unreadable_name(image, path, self.listed)
        annotation = read_annotation(path, f"restore it or {off}", f"complete the download or {off}")
        self.digest.update(annotation.content)
        height, width = size_of(annotation)
        stated = re.split(r"[/\\]", (annotation.root.findtext("filename") or "").strip())[-1]
        if stated and Path(image).name not in (stated, stated.rpartition(".")[0]):
            self.strangers.append(f"{printable(path.name)} is of {printable(stated)}")
        return {
            "file_name": str(self._images[image]),
            "image_id": image,
            "height": height,
            "width": width,
            "annotations": [_object(item, height, width) for item in objects_of(annotation)],
        }

    def remarks(self) -> list[str]:
        """A remark on annotations of other images; [] where there are none."""
        if not self.strangers:
            return []
        return [
            f"{len(self.strangers)} annotations name another image in <filename> (the first, "
            f"{self.strangers[0]}): the image of an annotation is the one of its own name"
        ]


def _object(item: VocObject, height: int, width: int) -> dict[str, Any]:
    left, top, right, bottom = (
        number_in(item.element, f"bndbox/{side}", item.where) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    box = [left - 1, top - 1, right, bottom]
    check_box(box, height, width, item.where)
    return {
        "name": item.label,
        "bbox": box,
        "bbox_mode": XYXY,
        "iscrowd": 0,
        "difficult": item.difficult,
        "area": (box[2] - box[0]) * (box[3] - box[1]),
    }
