"""Reads annotations in COCO's format (cocodataset.org/#format-data): one JSON file and a folder of images.

Category ids, which may have gaps, become 0 to C-1 in their order. Images are in the order of their ids. Both
is as in Detectron2. Masks are polygons or run lengths; `area` and `iscrowd` may be absent.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.data.class_names import is_one_line
from siamtransfer.detection.data.annotation_json import load_json
from siamtransfer.detection.data.coco_keypoints import keypoint_oddities, read_keypoints, read_skeleton
from siamtransfer.detection.data.coco_masks import Mask, Masks, encoded, read_masks
from siamtransfer.detection.data.dataset_split import (
    XYWH,
    DetectionSplit,
    ImageRecord,
    check_boxes,
    check_images,
    count_oddities,
)
from siamtransfer.detection.data.entries import Entries, first, numbers_of, shown
from siamtransfer.detection.data.image_names import why_odd
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

MOST_PIXELS = 2**31
"""Of an image; run lengths are counted with 32 bits."""
AREA_ROOM, FAR_AREA = 1.1, 10
"""How many times the larger of image and box an area is without a remark (tools round, and count the edge or
not), and the most that it may be: some count overlapping parts twice, and objects of a crop as a whole."""
_ROOT = "none"
"""The supercategory of the group of all classes, as Roboflow writes it; it may be called as one of these."""


def read_coco(annotations: Path, images: Path, name: str, *, keypoints: bool = False) -> DetectionSplit:
    """All images of the file, in the order of their ids; `name` is for messages. `keypoints`: read them too.

    Raises:
        UserError: a file is missing or broken; names it and the cure.
    """
    content, digest = load_annotations(annotations, name)
    return build_split(content, digest, images, name, printable(annotations), keypoints=keypoints)


def build_split(
    content: dict[str, Any], digest: Any, images: Path, name: str, where: str, *, keypoints: bool = False
) -> DetectionSplit:
    """The split of the `content` of a file called `where` in messages; `digest` is the SHA-256 of its bytes.

    Raises:
        UserError: an entry is broken, or an image is missing; names it and the cure.
    """
    classes = class_names(Entries("categories", content["categories"], where))
    numbers = {key: number for number, key in enumerate(classes)}
    skeleton = read_skeleton(content["categories"], where) if keypoints else None
    records = _records(Entries("images", content["images"], where), images)
    entries = Entries("annotations", content["annotations"], where)
    owners = _owners(entries, records)
    objects, remarks = _objects(entries, owners, numbers)
    for position, (record, item) in enumerate(zip(owners, objects, strict=True)):
        if skeleton is not None:
            size = record["height"], record["width"]
            item |= read_keypoints(entries.items[position], skeleton, size, entries.subject(position))
        record["annotations"].append(item)
    in_order = list(records.values())
    sizes = check_images(in_order, name)
    digest.update(repr((list(records), sizes)).encode())
    remarks = [*count_oddities(in_order), *_same_files(in_order), *remarks]
    if skeleton is not None:
        remarks += keypoint_oddities(in_order, skeleton)
    labels = tuple(classes.values())
    return DetectionSplit(name, "coco", in_order, labels, digest.hexdigest(), tuple(remarks), skeleton)


def load_annotations(path: Path, name: str) -> tuple[dict[str, Any], Any]:
    """The content of a file with the lists images, annotations and categories, and the SHA-256 of its bytes.

    Raises:
        UserError: it is missing, broken, or has not these lists.
    """
    where = printable(path)
    content, data = load_json(
        path,
        f"{name} needs the annotations",
        "point DETECTRON2_DATASETS at the folder that holds coco",
    )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(
                f"{where} has no list {key!r}; give a file of COCO's instances (the image list of a test set "
                "has no annotations and cannot be scored here)"
            )
        if not {dict}.issuperset(map(type, content[key])):
            wrong = first(content[key], lambda item: type(item) is dict)
            raise UserError(
                f"the list {key!r} in {where} does not consist of objects, {key}[{wrong}] is "
                f"{shown(content[key][wrong])}; restore the file"
            )
    if not content["categories"]:
        raise UserError(f"{where} lists no categories; list the classes under 'categories'")
    return content, hashlib.sha256(data)


def class_names(entries: Entries) -> dict[int, str]:
    """The names of the categories by their ids, in the order of these; one that has none is called by its id.

    Raises:
        UserError: an id or a name is none, or stands twice.
    """
    names = {}
    for position, key in enumerate(entries.ids()):
        name = entries.items[position].get("name", key)
        if not (isinstance(name, str) and name.strip()) and type(name) is not int:
            raise entries.wrong(position, f"has the name {shown(name)}", "give the class a name")
        label = str(name)
        if not is_one_line(label):
            label = label.strip()  # the lines of a list, taken with their ends
        if not is_one_line(label):
            raise entries.wrong(position, f"has the name {shown(name)}", "give it one of letters in one line")
        names[key] = label
    _rename_root(entries, names)
    if twice := [label for label, count in Counter(names.values()).items() if count > 1]:
        raise UserError(f"{entries.where} has several categories called {twice[0]!r}; give each its own name")
    return dict(sorted(names.items()))


def _rename_root(entries: Entries, names: dict[int, str]) -> None:
    """Tells a group of all classes that is called as one of them from it: `cat (none)` beside `cat`."""
    roots = [item["id"] for item in entries.items if item.get("supercategory") == _ROOT]
    if len(roots) == 1 and list(names.values()).count(names[int(roots[0])]) == 2:
        names[int(roots[0])] += f" ({_ROOT})"


def _records(entries: Entries, folder: Path) -> dict[int, ImageRecord]:
    """Records without annotations by their ids, in the order of these."""
    keys = entries.ids()
    heights, widths = (entries.integers(side, "its true size in pixels") for side in ("height", "width"))
    records = {}
    for position, (key, height, width) in enumerate(zip(keys, heights, widths, strict=True)):
        if height < 1 or width < 1 or height * width > MOST_PIXELS:
            raise entries.wrong(
                position, f"is {shown(width)} x {shown(height)} pixels", "write its true size there"
            )
        file_name = entries.items[position].get("file_name")
        if not isinstance(file_name, str):
            raise entries.wrong(position, "has no file_name", "write the name of its file there")
        if (why := why_odd(file_name)) is not None:
            raise UserError(f"{entries.subject(position)} has the file_name {shown(file_name)}, {why}")
        records[key] = {
            "file_name": str(folder / file_name),
            "image_id": key,
            "height": height,
            "width": width,
            "annotations": [],
        }
    return dict(sorted(records.items()))


def _owners(entries: Entries, records: dict[int, ImageRecord]) -> list[ImageRecord]:
    """The image of each annotation."""
    entries.ids()
    owners = []
    for position, key in enumerate(entries.integers("image_id", "the id of an image")):
        record = records.get(key)
        if record is None:
            raise entries.wrong(position, f"belongs to image {key!r}, which the file does not list")
        owners.append(record)
    return owners


def _objects(
    entries: Entries, owners: Sequence[ImageRecord], numbers: dict[int, int]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The annotations in Detectron2's form, in the order of the file, and what is odd in them."""
    categories = entries.integers("category_id", "the id of a category")
    if unknown := set(categories) - numbers.keys():
        position = first(categories, lambda key: key not in unknown)
        raise entries.wrong(position, f"has the category {categories[position]!r}, which is not listed")
    heights, widths = (
        np.array([record[side] for record in owners], np.int64) for side in ("height", "width")
    )
    boxes = entries.rows("bbox", 4, "the numbers x, y, width and height")
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    check_boxes(corners, heights, widths, entries.subject)
    masks = read_masks(entries, heights, widths)
    areas, remarks = _areas(entries, boxes, masks, heights, widths)
    columns = (entries.column("bbox"), categories, entries.flags("iscrowd"), areas, masks.masks)
    objects = []
    for box, category, crowd, area, mask in zip(*columns, strict=True):
        item = {
            "bbox": box,
            "bbox_mode": XYWH,
            "iscrowd": crowd,
            "area": area,
            "category_id": numbers[category],
        }
        if mask is not None:
            item["segmentation"] = mask
        objects.append(item)
    return objects, [*_fractions(entries, boxes, heights, widths), *_mask_oddities(entries, masks), *remarks]


def _areas(
    entries: Entries, boxes: np.ndarray, masks: Masks, heights: np.ndarray, widths: np.ndarray
) -> tuple[list[Any], list[str]]:
    """The area of each object, computed where the file states none, and what is odd in the stated ones."""
    stated = entries.column("area", 0.0)
    absent = [position for position, item in enumerate(entries.items) if "area" not in item]
    areas, of_boxes = numbers_of(stated), boxes[:, 2] * boxes[:, 3]
    if areas is None:
        position = first(stated, lambda area: numbers_of([area]) is not None)
        raise entries.wrong(position, f"has the area {shown(stated[position])}")
    whole = np.maximum(heights * widths, of_boxes)
    wrong = np.flatnonzero(~((areas >= 0) & (areas <= FAR_AREA * whole)))
    if wrong.size:
        position, pixels = int(wrong[0]), heights[wrong[0]] * widths[wrong[0]]
        raise entries.wrong(
            position,
            f"has the area {shown(stated[position])}, and its image has {pixels:,} pixels",
            "mend it, or leave the key area out, and it is computed",
        )
    for position in absent:
        mask = masks.masks[position]
        if mask is None:
            _, _, width, height = entries.items[position]["bbox"]
            stated[position] = width * height
        else:
            size = int(heights[position]), int(widths[position])
            stated[position] = _pixels(mask, int(masks.pixels[position]), *size)
        areas[position] = stated[position]
    counts = (
        (
            (areas == 0) & (of_boxes >= 1),
            "have the area 0 and a box of a pixel or more: COCO's AP takes them for small",
        ),
        (
            areas > AREA_ROOM * whole + 1,
            "have an area larger than image and box: COCO's AP for sizes goes by it",
        ),
    )
    return stated, [f"{found.sum()} objects {what}" for found, what in counts if found.any()]


def _pixels(mask: Mask, inside: int, height: int, width: int) -> float:
    """The pixels of a mask; of run lengths those `inside` are known."""
    if isinstance(mask, dict):
        return float(inside)
    from pycocotools import mask as run_lengths

    return float(run_lengths.area(encoded(mask, height, width)))


def _fractions(entries: Entries, boxes: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> list[str]:
    """Raises UserError where all boxes are fractions of their images."""
    if len(boxes) and (boxes <= 1).all() and (boxes != boxes.round()).any() and (heights * widths > 64).all():
        raise UserError(
            f"no box of {entries.where} has a side of more than one pixel: they are fractions of width and "
            "height; multiply them by the size of their image"
        )
    return []


def _mask_oddities(entries: Entries, masks: Masks) -> list[str]:
    """What is odd in the masks and stops no training, one sentence each."""
    remarks = []
    without = [position for position, mask in enumerate(masks.masks) if mask is None]
    if masks.bare:
        remarks.append(
            f"{len(masks.bare)} objects have no polygon with three corners, "
            f"annotations[{masks.bare[0]}] for one: their boxes are kept, without a mask"
        )
    if 0 < len(without) < len(entries):
        remarks.append(
            f"{len(without)} of {len(entries)} objects have no mask, annotations[{without[0]}] for one: "
            "only boxes can be trained and scored"
        )
    counts = (
        (masks.cut, "objects have polygons without three corners beside others: these are left out"),
        (masks.empty, "masks have no pixel inside"),
        (masks.outside, "masks reach more than a pixel beyond their image: training cuts them off"),
    )
    return remarks + [f"{count} {what}" for count, what in counts if count]


def _same_files(records: Sequence[ImageRecord]) -> list[str]:
    """A remark where two entries are one image: the objects of each are missing in the other."""
    more = len(records) - len({record["file_name"] for record in records})
    return [f"{more} images are listed again under another id: each has its own objects only"] if more else []
