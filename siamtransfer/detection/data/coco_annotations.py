"""Reads annotations in COCO's format (cocodataset.org/#format-data): one JSON file and a folder of images.

Category ids, which may have gaps, become 0 to C-1 in their order. Images are in the order of their ids. Both
is as in Detectron2. Masks are polygons or run lengths; `area` and `iscrowd` may be absent.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from siamtransfer.detection.data.coco_keypoints import keypoint_oddities, read_keypoints, read_skeleton
from siamtransfer.detection.data.dataset_split import (
    XYWH,
    DetectionSplit,
    ImageRecord,
    check_box,
    check_images,
    count_oddities,
)
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

POLYGON = 6  # coordinates of a triangle, the least that has an inside


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
    classes = _by_id(content["categories"], "categories", where)
    numbers = {key: number for number, key in enumerate(sorted(classes))}
    skeleton = read_skeleton(content["categories"], where) if keypoints else None
    records = {
        key: _record(image, images, where)
        for key, image in sorted(_by_id(content["images"], "images", where).items())
    }
    _by_id(content["annotations"], "annotations", where)
    dropped = 0
    for item in content["annotations"]:
        record = records.get(item.get("image_id"))
        if record is None:
            raise _broken(
                item, where, f"belongs to image {item.get('image_id')!r}, which the file does not list"
            )
        if item.get("category_id") not in numbers:
            raise _broken(item, where, f"has the category {item.get('category_id')!r}, which is not listed")
        annotation = _annotation(item, record, where)
        if annotation is None:
            dropped += 1
            continue
        annotation["category_id"] = numbers[item["category_id"]]
        if skeleton is not None:
            annotation |= read_keypoints(item, skeleton, where)
        record["annotations"].append(annotation)
    labels = [str(classes[key].get("name", key)) for key in numbers]
    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        raise UserError(f"{where} has several categories called {twice[0]!r}; give each its own name")
    in_order = list(records.values())
    sizes = check_images(in_order, name)
    digest.update(repr((list(records), sizes)).encode())
    remarks = count_oddities(in_order)
    if skeleton is not None:
        remarks += keypoint_oddities(in_order, skeleton)
    if dropped:
        remarks.append(f"{dropped} objects are left out, because none of their polygons has three corners")
    return DetectionSplit(name, "coco", in_order, tuple(labels), digest.hexdigest(), tuple(remarks), skeleton)


def load_json(path: Path, needed: str, otherwise: str) -> tuple[Any, bytes]:
    """The content of a JSON file and its bytes.

    Raises:
        UserError: it cannot be read (a sentence that begins with `needed` and ends with what to do
            `otherwise` than to complete the download), or is no JSON.
    """
    where = printable(path)
    try:
        data = path.read_bytes()
        return json.loads(data), data
    except OSError as error:
        raise UserError(
            f"{needed} {where}, which cannot be read ({error.strerror}); complete the download, or "
            f"{otherwise}"
        ) from error
    except ValueError as error:
        raise UserError(f"{where} is no JSON ({error}); it may be cut off: restore it") from error


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
        if not all(isinstance(item, dict) for item in content[key]):
            raise UserError(f"the list {key!r} in {where} does not consist of objects; restore the file")
    if not content["categories"]:
        raise UserError(f"{where} lists no categories; list the classes under 'categories'")
    return content, hashlib.sha256(data)


def _by_id(items: list[dict[str, Any]], what: str, where: str) -> dict[int, dict[str, Any]]:
    by_id: dict[int, dict[str, Any]] = {}
    for item in items:
        key = item.get("id")
        if not isinstance(key, int):
            raise UserError(
                f"an entry of {what} in {where} has the id {key!r}; give each an integer of its own"
            )
        if key in by_id:
            raise UserError(f"two entries of {what} in {where} have the id {key}; give each its own")
        by_id[key] = item
    return by_id


def _record(image: dict[str, Any], folder: Path, where: str) -> ImageRecord:
    height, width = image.get("height"), image.get("width")
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):
        raise UserError(
            f"image {image['id']} in {where} is {width!r} x {height!r} pixels; write its true size there"
        )
    if not isinstance(image.get("file_name"), str):
        raise UserError(f"image {image['id']} in {where} has no file_name; write the name of its file there")
    return {
        "file_name": str(folder / image["file_name"]),
        "image_id": image["id"],
        "height": height,
        "width": width,
        "annotations": [],
    }


def _annotation(item: dict[str, Any], record: ImageRecord, where: str) -> dict[str, Any] | None:
    """The annotation in Detectron2's form without its category; None where its mask has no inside."""
    box = item.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)):
        raise _broken(item, where, f"has the box {box!r} instead of x, y, width and height")
    left, top, width, height = box
    corners = [left, top, left + width, top + height]
    check_box(corners, record["height"], record["width"], f"annotation {item['id']} in {where}")
    annotation = {"bbox": box, "bbox_mode": XYWH, "iscrowd": int(item.get("iscrowd", 0))}
    mask = item.get("segmentation")
    if mask:
        annotation["segmentation"] = _mask(mask, item, record, where)
        if not annotation["segmentation"]:
            return None
    annotation["area"] = item["area"] if "area" in item else _area(annotation, record)
    if not (isinstance(annotation["area"], int | float) and annotation["area"] >= 0):
        raise _broken(item, where, f"has the area {annotation['area']!r}")
    return annotation


def _mask(
    mask: Any, item: dict[str, Any], record: ImageRecord, where: str
) -> list[list[float]] | dict[str, Any]:
    """Polygons with three corners or more, or compressed run lengths."""
    if isinstance(mask, dict):
        if mask.get("size") != [record["height"], record["width"]]:
            raise _broken(
                item, where, f"has a mask of size {mask.get('size')!r}, not its image's height and width"
            )
        if isinstance(mask.get("counts"), list):
            from pycocotools import mask as run_lengths

            if sum(mask["counts"]) != record["height"] * record["width"]:
                raise _broken(item, where, "has run lengths that do not add up to its image's pixels")
            return run_lengths.frPyObjects(mask, *mask["size"])
        if not isinstance(mask.get("counts"), str | bytes):
            raise _broken(item, where, "has a mask without run lengths")
        return mask
    numbers = isinstance(mask, list) and all(
        isinstance(polygon, list) and all(isinstance(value, int | float) for value in polygon)
        for polygon in mask
    )
    if not numbers:
        raise _broken(item, where, "has a mask that is neither polygons nor run lengths")
    return [polygon for polygon in mask if len(polygon) >= POLYGON and len(polygon) % 2 == 0]


def _area(annotation: dict[str, Any], record: ImageRecord) -> float:
    """The area of the mask, or of the box where there is none."""
    if "segmentation" not in annotation:
        return annotation["bbox"][2] * annotation["bbox"][3]
    from pycocotools import mask as run_lengths

    return float(run_lengths.area(encoded(annotation["segmentation"], record["height"], record["width"])))


def encoded(mask: list[list[float]] | dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """A mask as compressed run lengths, as COCO's own tools make them."""
    if isinstance(mask, dict):
        return mask
    from pycocotools import mask as run_lengths

    return run_lengths.merge(run_lengths.frPyObjects(mask, height, width))


def _broken(item: dict[str, Any], where: str, what: str) -> UserError:
    return UserError(f"annotation {item.get('id')} in {where} {what}; mend the annotation or take it out")
