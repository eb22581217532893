"""Reads panoptic annotations in COCO's format (cocodataset.org/#format-data): a JSON file and PNGs.

The JSON gives each segment of a PNG a category; `isthing` of a category says whether its segments are
objects. Objects to train on come from the file of COCO's instances of the same images, as in Detectron2's
`…_panoptic_separated` sets: their masks may overlap, segments do not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from siamtransfer.detection.data.annotation_json import load_json
from siamtransfer.detection.data.coco_annotations import class_names, read_coco
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.entries import Entries, shown
from siamtransfer.detection.data.image_names import why_odd
from siamtransfer.detection.data.panoptic_pngs import SEGMENT_FILE, SEGMENTS, check_pngs
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable


def read_panoptic(instances: Path, panoptic: Path, pngs: Path, images: Path, name: str) -> DetectionSplit:
    """All images of the file of instances, each with the path of its PNG and its segments.

    A segment is a dict of id, category_id (things from 0 in the order of their ids, then stuff), isthing and
    iscrowd. Every PNG is read and compared with its segments. `name` is for messages.

    Raises:
        UserError: a file is missing or broken, or two of them contradict each other; names it and the cure.
    """
    split = read_coco(instances, images, name)
    content, digest = _load(panoptic, name)
    where = printable(panoptic)
    numbers, stuff = _categories(content["categories"], split, where)
    entries = Entries("annotations", content["annotations"], where)
    keys = entries.integers("image_id", "the id of an image")
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise UserError(f"{where} has several annotations of the image {twice[0]}; give each image one")
    annotations = dict(zip(keys, content["annotations"], strict=True))
    absent = [record for record in split.records if record["image_id"] not in annotations]
    if absent:
        raise UserError(
            f"{len(absent)} of the {len(split.records)} images of {name} are not in {where}, "
            f"{printable(absent[0]['file_name'])} for one; give the two files of the same images"
        )
    for record in split.records:
        item = annotations[record["image_id"]]
        record[SEGMENT_FILE] = str(pngs / str(item.get("file_name")))
        record[SEGMENTS] = _segments(item, numbers, len(split.classes), where)
    digest_of_pngs = check_pngs(split.records, name)
    fingerprint = hashlib.sha256(f"{split.fingerprint} {digest} {digest_of_pngs}".encode()).hexdigest()
    return replace(split, stuff=stuff, fingerprint=fingerprint)


def _load(path: Path, name: str) -> tuple[dict[str, Any], str]:
    where = printable(path)
    content, data = load_json(
        path, f"{name} needs the panoptic annotations", "name the folder that holds coco by --root"
    )
    for key in ("annotations", "categories"):
        items = content.get(key) if isinstance(content, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise UserError(f"{where} has no list of objects {key!r}; give a file of COCO's panoptic task")
    return content, hashlib.sha256(data).hexdigest()


def _categories(
    categories: list[dict[str, Any]], split: DetectionSplit, where: str
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Category ids to class numbers, things before stuff, and the names of the stuff."""
    class_names(Entries("categories", categories, where))
    for category in categories:
        if type(category["id"]) is not int or category.get("isthing") not in (0, 1):
            raise UserError(
                f"the category {shown(category.get('name'))} in {where} needs an integer `id` and an "
                "`isthing` of 0 or 1; give a file of COCO's panoptic task"
            )
    in_order = sorted(categories, key=lambda category: category["id"])
    things = [category for category in in_order if category["isthing"]]
    stuff = [category for category in in_order if not category["isthing"]]
    names = tuple(str(category.get("name", category["id"])) for category in things)
    if names != split.classes:
        raise UserError(
            f"{where} has the things {first_few(list(names))} and the file of instances has "
            f"{first_few(list(split.classes))}; give two files with the same classes"
        )
    if not stuff:
        raise UserError(
            f"{where} has no category of stuff (`isthing` 0), without which there is nothing but instances "
            "to train; take a configuration of instances"
        )
    numbers = {category["id"]: number for number, category in enumerate([*things, *stuff])}
    return numbers, tuple(str(category.get("name", category["id"])) for category in stuff)


def _segments(item: dict[str, Any], numbers: dict[int, int], things: int, where: str) -> list[dict[str, Any]]:
    subject = f"image {shown(item.get('image_id'))} in {where}"
    listed, file_name = item.get(SEGMENTS), item.get("file_name")
    if not isinstance(listed, list) or not isinstance(file_name, str):
        raise UserError(f"{subject} has no file_name or no list {SEGMENTS!r}; restore the file")
    if (why := why_odd(file_name)) is not None:
        raise UserError(f"{subject} has the file_name {shown(file_name)}, {why}")
    segments, seen = [], set()
    for position, segment in enumerate(listed):
        if not isinstance(segment, dict):
            raise UserError(
                f"{subject} has under {SEGMENTS}[{position}] {shown(segment)}, which is no segment; restore "
                "the file"
            )
        key, category, crowd = (segment.get(name) for name in ("id", "category_id", "iscrowd"))
        if type(key) is not int or not 0 < key < 2**24 or key in seen:
            raise UserError(
                f"{subject} has a segment with the id {shown(key)}; give each a positive id of its own"
            )
        number = numbers.get(category) if type(category) is int else None
        if number is None:
            raise UserError(
                f"{subject} has a segment of the category {shown(category)}, which is not listed; mend it"
            )
        if "iscrowd" in segment and not (type(crowd) in (int, bool) and crowd in (0, 1)):
            raise UserError(f"{subject} has the segment {key} with the iscrowd {shown(crowd)}; take 0 or 1")
        seen.add(key)
        segments.append(
            {
                "id": key,
                "category_id": number,
                "isthing": number < things,
                "iscrowd": int(crowd or 0),
            }
        )
    return segments
