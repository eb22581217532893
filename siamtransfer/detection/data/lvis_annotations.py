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

from siamtransfer.detection.data.coco_annotations import build_split, load_annotations
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


def read_lvis(
    annotations: Path, images: Path, name: str, first: DetectionSplit | None = None
) -> DetectionSplit:
    """All images of the file, in the order of their ids; `images` holds folders such as train2017.

    `first` is the first split to train on, whose classes this one has: it may list fewer, and no other.

    Raises:
        UserError: a file is missing or broken, or its classes are not those of `first`; names the cure.
    """
    content, digest = load_annotations(annotations, name)
    where = printable(annotations)
    frequencies = _frequencies(content["categories"], where)
    if first is not None and first.kind == "lvis":
        content["categories"] = _categories_of(first, content["categories"], where)
    content["images"] = [_with_path(image, where) for image in content["images"]]
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


def _frequencies(categories: list[dict[str, Any]], where: str) -> Counter[str]:
    """How many categories are rare, common and frequent."""
    for category in categories:
        if category.get("frequency") not in FREQUENCIES:
            raise UserError(
                f"the category {category.get('name', category.get('id'))!r} in {where} has the frequency "
                f"{category.get('frequency')!r} instead of r, c or f; give a file of LVIS, or name one of "
                "COCO without the prefix lvis:"
            )
    return Counter(category["frequency"] for category in categories)


def _counts(frequencies: Counter[str]) -> str:
    return ", ".join(f"{frequencies[key]} {word}" for key, word in FREQUENCIES.items()) + " classes"


def _categories_of(
    first: DetectionSplit, categories: list[dict[str, Any]], where: str
) -> list[dict[str, Any]]:
    """The categories of `first`; those of this file have to be among them, with the same ids."""
    known = dict(zip(first.category_ids, first.classes, strict=True))
    other = [
        f"{category.get('name')} ({category.get('id')})"
        for category in categories
        if known.get(category.get("id", -1)) != category.get("name")
    ]
    if other:
        raise UserError(
            f"{where} has {len(other)} categories that {first.name} has not under the same id: "
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
            f"image {image.get('id')} in {where} has the coco_url {url!r}; mend it or take it out"
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
            if not (isinstance(listed, list) and all(isinstance(item, int) for item in listed)):
                raise UserError(
                    f"image {image['id']} in {where} has no list of category ids under {key}; LVIS's files "
                    "have it in every image"
                )
            if unknown := [str(item) for item in listed if item not in known]:
                raise UserError(
                    f"image {image['id']} in {where} names under {key} the categories {first_few(unknown)}, "
                    "which are not listed; mend the file"
                )
            record[key] = listed
        there = {ids[annotation["category_id"]] for annotation in record["annotations"]}
        contradictions += len(there.intersection(record[LISTS[0]]))
    return contradictions
