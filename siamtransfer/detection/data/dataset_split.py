"""One split of a detection set: records in Detectron2's form, and the checks that all formats share.

A record is one of Detectron2's standard dataset dicts (detectron2.readthedocs.io, "Use Custom Datasets"):
file_name, image_id, height, width, and `annotations`, each with bbox, bbox_mode, category_id, iscrowd, and
segmentation where there are masks; `keypoints` too where they are asked for. More keys, which Detectron2
ignores: `area`, the object's area in pixels as COCO's evaluation needs it, `num_keypoints`, the number of
labelled ones, and VOC's flag `difficult`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from siamtransfer.data.decode import FORMATS
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

AnnotationFormat = Literal["voc", "coco", "cityscapes", "lvis"]
ImageRecord = dict[str, Any]
XYXY, XYWH = 0, 1  # the values of Detectron2's BoxMode
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that swap height and width
READERS = 16  # threads; a network file system serves many requests at once


@dataclass(frozen=True)
class Skeleton:
    """The K keypoints of an object: names, pairs that a mirrored image swaps, numbers that a line joins."""

    names: tuple[str, ...]
    flips: tuple[tuple[str, str], ...]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class DetectionSplit:
    """The records of one split, e.g. voc_2007_test.

    name: as the user wrote it; kind: the format of the annotations; classes: names by category_id;
    fingerprint: of the annotations and of the names and byte sizes of the images, whatever the folder;
    remarks: oddities that are no errors, one sentence each; skeleton: the keypoints, where they were read;
    stuff: the names of the classes without objects, by their number, of panoptic data; source: the file of
    annotations, and category_ids: the ids in it by number, where an evaluator reads that file itself.
    """

    name: str
    kind: AnnotationFormat
    records: list[ImageRecord]
    classes: tuple[str, ...]
    fingerprint: str
    remarks: tuple[str, ...] = ()
    skeleton: Skeleton | None = None
    stuff: tuple[str, ...] = ()
    source: Path | None = None
    category_ids: tuple[int, ...] = ()

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """All objects, in the order of the images."""
        return [annotation for record in self.records for annotation in record["annotations"]]


def corners(annotation: dict[str, Any]) -> list[float]:
    """The box as x0, y0, x1, y1."""
    a, b, c, d = annotation["bbox"]
    return [a, b, c, d] if annotation["bbox_mode"] == XYXY else [a, b, a + c, b + d]


def read_image(record: ImageRecord) -> np.ndarray:
    """The image of a record as uint8[height, width, 3] RGB, rotated by its EXIF data as Detectron2 does.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with Image.open(record["file_name"], formats=FORMATS) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise _unreadable(record["file_name"], error) from error


def check_box(box: Sequence[float], height: int, width: int, where: str) -> None:
    """Checks that a box x0, y0, x1, y1 has finite corners in order and touches its image.

    A box without area is accepted: COCO's own annotations hold a few, and training skips them.

    Raises:
        UserError: names the object (`where`), the box and what is wrong.
    """
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)):
        wrong = "are not all numbers"
    elif x1 < x0 or y1 < y0:
        wrong = "have the second corner before the first"
    elif x1 < 0 or y1 < 0 or x0 > width or y0 > height:
        wrong = f"lie outside the image of {width} x {height} pixels"
    else:
        return
    corners_in_words = ", ".join(f"{value:g}" for value in box)
    raise UserError(f"the corners {corners_in_words} of {where} {wrong}; mend the annotation or take it out")


def check_images(records: Sequence[ImageRecord], name: str) -> list[int]:
    """Reads the header of every image; returns the sizes of the files in bytes.

    Raises:
        UserError: there are no records, an image is absent, empty or no image, or it has not the height and
            width of its annotation (EXIF's orientation counted in, as Detectron2 counts it).
    """
    if not records:
        raise UserError(f"{name} has no images; choose a part that has some")
    paths = [record["file_name"] for record in records]
    with ThreadPoolExecutor(READERS) as pool:
        sizes = list(pool.map(_bytes, paths, chunksize=256))
        missing = [path for path, size in zip(paths, sizes, strict=True) if size is None]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(paths)} images of {name} are missing, {printable(missing[0])} "
                "for one; complete the download or take them out of the annotations"
            )
        for record, shape in zip(records, pool.map(_height_and_width, paths, chunksize=256), strict=True):
            if shape != (record["height"], record["width"]):
                raise UserError(
                    f"{printable(record['file_name'])} is {shape[1]} x {shape[0]} pixels and its annotation "
                    f"in {name} says {record['width']} x {record['height']}; mend the annotation or the image"
                )
    return [size for size in sizes if size is not None]


def count_oddities(records: Sequence[ImageRecord]) -> list[str]:
    """Oddities that stop no training, one sentence each: images without objects, boxes without area or beyond
    the edge."""
    without = sum(not record["annotations"] for record in records)
    flat = outside = 0
    for record in records:
        for annotation in record["annotations"]:
            x0, y0, x1, y1 = corners(annotation)
            flat += x1 <= x0 or y1 <= y0
            outside += min(x0, y0) < -1 or x1 > record["width"] + 1 or y1 > record["height"] + 1
    oddities = (
        (without, "images have no object"),
        (flat, "boxes have no area: training passes over them"),
        (outside, "boxes reach more than a pixel beyond their image: training cuts them off"),
    )
    return [f"{count} {what}" for count, what in oddities if count]


def _bytes(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (a Path takes three times as long)
    except OSError:
        return None


def _height_and_width(path: str) -> tuple[int, int]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            turned = "exif" in image.info and image.getexif().get(ORIENTATION) in SIDEWAYS
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise _unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def _unreadable(path: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"cannot read the image {printable(path)} ({reason}); restore it or take it out of the annotations"
    )
