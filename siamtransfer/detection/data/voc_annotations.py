"""Reads a folder in Pascal VOC's layout: Annotations/, JPEGImages/ and ImageSets/Main/SPLIT.txt.

Source of the format: the VOC2007 development kit (Everingham et al., IJCV 2010). Boxes there count pixels
from 1 and include both corners; here they are continuous coordinates from 0, so the first corner loses one,
as in Detectron2. Objects flagged `difficult` train like all others (Detectron2 does so) and are left out of
VOC's evaluation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from siamtransfer.data.listing import ENDINGS
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
    digest = hashlib.sha256()
    parsed = [_read(folder, image, digest) for image in names]
    if classes is None:
        classes = sorted({item["name"] for record in parsed for item in record["annotations"]})
    numbers = {label: number for number, label in enumerate(classes)}
    for record in parsed:
        for item in record["annotations"]:
            label = item.pop("name")
            if label not in numbers:
                raise UserError(
                    f"{printable(_annotation(folder, record['image_id']))} has an object of the class "
                    f"{label!r}, which is none of {first_few(list(classes))}; mend it or train on "
                    "a part that has the class"
                )
            item["category_id"] = numbers[label]
    sizes = check_images(parsed, name)
    digest.update(repr((names, sizes)).encode())
    return DetectionSplit(
        name, "voc", parsed, tuple(classes), digest.hexdigest(), tuple(count_oddities(parsed))
    )


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
    if not path.is_file():
        raise UserError(
            f"{name} needs the list {printable(path)}, which does not exist; the folder has "
            f"{first_few(splits(folder)) or 'no lists'}"
        )
    names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    twice = len(names) - len(set(names))
    if twice:
        raise UserError(f"{printable(path)} lists {twice} images more than once; list each image once")
    return names


def _annotation(folder: Path, image: str) -> Path:
    return folder / "Annotations" / f"{image}.xml"


def _read(folder: Path, image: str, digest: Any) -> ImageRecord:
    """The record of an image; its objects have the class's name under `name` instead of category_id."""
    path = _annotation(folder, image)
    try:
        content = path.read_bytes()
        tree = ET.fromstring(content)
    except OSError as error:
        raise UserError(
            f"cannot read the annotation {printable(path)} ({error.strerror}); complete the download or take "
            f"{image} off the list"
        ) from error
    except ET.ParseError as error:
        raise UserError(
            f"the annotation {printable(path)} is no XML ({error}); restore it or take {image} off the list"
        ) from error
    digest.update(content)
    height, width = (int(_number(tree, f"size/{side}", path)) for side in ("height", "width"))
    if min(height, width) < 1:
        raise UserError(
            f"{printable(path)} gives its image {width} x {height} pixels; write the true size there"
        )
    return {
        "file_name": _image_file(folder, image),
        "image_id": image,
        "height": height,
        "width": width,
        "annotations": [
            _object(item, k, path, height, width) for k, item in enumerate(tree.findall("object"), 1)
        ],
    }


def _object(item: ET.Element, number: int, path: Path, height: int, width: int) -> dict[str, Any]:
    label = (item.findtext("name") or "").strip()
    if not label:
        raise UserError(f"object {number} in {printable(path)} has no name; name its class or take it out")
    left, top, right, bottom = (
        _number(item, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    box = [left - 1, top - 1, right, bottom]
    check_box(box, height, width, f"object {number} in {printable(path)}")
    return {
        "name": label,
        "bbox": box,
        "bbox_mode": XYXY,
        "iscrowd": 0,
        "difficult": (item.findtext("difficult") or "0").strip() == "1",
        "area": (box[2] - box[0]) * (box[3] - box[1]),
    }


def _number(item: ET.Element, tag: str, path: Path) -> float:
    text = item.findtext(tag)
    try:
        return float(text or "")
    except ValueError:
        content = "has none" if text is None else f"says {text.strip()!r}"
        raise UserError(
            f"{printable(path)} needs a number in <{tag}> and {content}; mend the annotation"
        ) from None


def _image_file(folder: Path, image: str) -> str:
    """JPEGImages/NAME.jpg, or the file NAME with the ending of another image format."""
    usual = folder / "JPEGImages" / f"{image}.jpg"
    if usual.exists():
        return str(usual)
    others = (usual.with_name(f"{image}.{ending}") for ending in sorted(ENDINGS - {"jpg"}))
    return str(next((path for path in others if path.exists()), usual))
