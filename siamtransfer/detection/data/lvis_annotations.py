"""Reads annotations in LVIS's format (lvisdataset.org): COCO's, with the classes that were looked for.

An image says which classes are surely absent (neg_category_ids) and which of those present are incompletely
annotated (not_exhaustive_category_ids); of all other classes nothing is known there. A category has a
frequency, r, c or f: rare, common or frequent in the training images. Images are COCO's; their path is the
end of coco_url (train2017/000000000009.jpg), and file_name only where there is no coco_url.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from siamtransfer.detection.data.coco_annotations import (
    build_split,
    class_names,
    load_annotations,
)
from siamtransfer.detection.data.coco_masks import POLYGON
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.entries import Entries, first, shown
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
MOST_OF_LVIS = 2**63 - 1  # of an id
LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


def read_lvis(
    annotations: Path, images: Path, name: str, train: DetectionSplit | None = None
) -> DetectionSplit:
    """All images of the file, in the order of their ids; `images` holds folders such as train2017.

    `train` is the first split to train on, whose classes this one has: it may list fewer, and no other.

    Raises:
        UserError: a file is missing or broken, or its classes are not those of `train`; names the cure.
    """
    content, digest = load_annotations(annotations, name)
    where = printable(annotations)
    frequencies = _frequencies(content["categories"], where)
    if train is not None and train.kind == "lvis":
        content["categories"] = _categories_of(train, content["categories"], where)
    content["images"] = [_with_path(image, where) for image in content["images"]]
    _check_exact(content, where)
    split = build_split(content, digest, images, name, where)
    ids = tuple(sorted(category["id"] for category in content["categories"]))
    contradictions = _read_lists(split, {image["id"]: image for image in content["images"]}, ids, where)
    remarks = [*split.remarks, _counts(frequencies)]
    if contradictions:
        remarks.append(
            f"{contradictions} classes are among neg_category_ids of an image that has such an object"
        )
    return replace(
        split, kind="lvis", remarks=tuple(remarks), source=annotations.absolute(), category_ids=ids
    )


def _check_exact(content: dict[str, Any], where: str) -> None:
    """Raises UserError where LVIS's own evaluation, which reads the file itself, would fail on what COCO's
    reading accepts: a whole float in place of an id, and an object without area."""
    keys = {"images": ("id",), "categories": ("id",), "annotations": ("id", "image_id", "category_id")}
    for name, of_name in keys.items():
        entries = Entries(name, content[name], where)
        for key in of_name:
            values = entries.column(key)
            if set(map(type, values)) - {int} or max(map(abs, values), default=0) > MOST_OF_LVIS:
                position = first(values, lambda value: type(value) is int and abs(value) <= MOST_OF_LVIS)
                raise entries.wrong(
                    position,
                    f"has the {key} {shown(values[position])}, and LVIS's evaluation takes integers",
                )
    for position, mask in enumerate(entries.column("segmentation")):
        if type(mask) is list and any(type(part) is list and len(part) < POLYGON for part in mask):
            raise entries.wrong(
                position, "has a polygon without three corners, and readers of LVIS take none"
            )
    areas = entries.column("area")
    if None in areas:
        raise entries.wrong(areas.index(None), "has no area, which LVIS's evaluation needs", "state the area")


def _frequencies(categories: list[dict[str, Any]], where: str) -> Counter[str]:
    """How many categories are rare, common and frequent."""
    for category in categories:
        if (frequency := category.get("frequency")) not in tuple(FREQUENCIES):
            raise UserError(
                f"the category {shown(category.get('name', category.get('id')))} in {where} has the "
                f"frequency {shown(frequency)} instead of r, c or f; give a file of LVIS, or name one of "
                "COCO without the prefix lvis:"
            )
    return Counter(category["frequency"] for category in categories)


def _counts(frequencies: Counter[str]) -> str:
    return ", ".join(f"{frequencies[key]} {word}" for key, word in FREQUENCIES.items()) + " classes"


def _categories_of(
    train: DetectionSplit, categories: list[dict[str, Any]], where: str
) -> list[dict[str, Any]]:
    """The categories of `train`; those of this file have to be among them, with the same ids."""
    known = dict(zip(train.category_ids, train.classes, strict=True))
    theirs = class_names(Entries("categories", categories, where))
    other = [f"{name} ({key})" for key, name in theirs.items() if known.get(key) != name]
    if other:
        raise UserError(
            f"{where} has {len(other)} categories that {train.name} has not under the same id: "
            f"{first_few(other)}; give parts of the same version of LVIS"
        )
    return [{"id": key, "name": label} for key, label in known.items()]


def _with_path(image: dict[str, Any], where: str) -> dict[str, Any]:
    """The image with its path below the folder of images under file_name."""
    url = image.get("coco_url")
    if url is None:
        return image
    if not isinstance(url, str) or url.count("/") < 1:
        raise UserError(
            f"image {shown(image.get('id'))} in {where} has the coco_url {shown(url)}; mend it or take it out"
        )
    return image | {"file_name": "/".join(url.split("/")[-2:])}


def _read_lists(
    split: DetectionSplit, images: dict[int, dict[str, Any]], ids: tuple[int, ...], where: str
) -> int:
    """Puts the two lists of every image into its record; returns how often an absent class is there."""
    known, contradictions = set(ids), 0
    for record in split.records:
        image = images[record["image_id"]]
        for key in LISTS:
            listed = image.get(key)
            if not (isinstance(listed, list) and {int}.issuperset(map(type, listed))):
                raise UserError(
                    f"image {image['id']} in {where} has no list of category ids under {key}; LVIS's files "
                    "have it in every image"
                )
            if unknown := [shown(item) for item in listed if item not in known]:
                raise UserError(
                    f"image {image['id']} in {where} names under {key} the categories {first_few(unknown)}, "
                    "which are not listed; mend the file"
                )
            record[key] = listed
        there = {ids[annotation["category_id"]] for annotation in record["annotations"]}
        contradictions += len(there.intersection(record[LISTS[0]]))
    return contradictions
