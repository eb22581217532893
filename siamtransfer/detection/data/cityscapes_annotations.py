"""Reads Cityscapes' fine annotations of instances (Cordts et al., arXiv 1604.01685).

Detectron2 trains on the polygons (NAME_gtFine_polygons.json) of the eight classes whose objects count; the
benchmark scores against NAME_gtFine_instanceIds.png. Both are read and checked here before Detectron2's own
loader makes the records.

A record has the further key `instance_ids`, the path of that PNG.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from siamtransfer.detection.data.annotation_json import load_json
from siamtransfer.detection.data.dataset_packages import import_cityscapes
from siamtransfer.detection.data.dataset_split import (
    READERS,
    DetectionSplit,
    ImageRecord,
    check_images,
    count_oddities,
)
from siamtransfer.detection.data.entries import shown
from siamtransfer.detection.data.near_image import far
from siamtransfer.segmentation.data.published import CITYSCAPES_COUNTS, open_cityscapes
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.text import first_few, printable

IMAGE, TRUTH = "leftImg8bit", "gtFine"
KINDS = ("labelIds.png", "instanceIds.png", "polygons.json")
PATTERN = re.compile(rf"[^_]+_\d{{6}}_\d{{6}}_{IMAGE}\.png")
GROUP = "group"  # the end of the name of a label for several objects in one outline
MOST_SIDE = 2**16  # pixels; those of Cityscapes are 2048 x 1024
FIRST_INSTANCE = (
    1000  # an id in instanceIds.png below this is a label id, of a region or of a group of objects
)


class _Pair(NamedTuple):
    """The files of one image: `image`, and by kind those of its truth."""

    image: Path
    truth: dict[str, Path]


class _Contents(NamedTuple):
    """What the truth of one image holds: its size, digest, and how often ids and names that do not exist."""

    height: int
    width: int
    digest: bytes
    unknown_ids: Counter[int]
    unknown_names: Counter[str]


def read_cityscapes(root: Path, split: str, name: str) -> DetectionSplit:
    """The images of leftImg8bit/SPLIT below `root` in the order of their names, with the objects that count.

    Raises:
        UserError: a file is missing, misnamed, broken or of another size, an id or a name does not exist, or
            there is no object; names it and the cure.
    """
    labels = import_cityscapes()
    if split not in CITYSCAPES_COUNTS:
        raise UserError(f"{name}: Cityscapes has no split {split!r}; take {' or '.join(CITYSCAPES_COUNTS)}")
    for kind in (IMAGE, TRUTH):
        if not (root / kind / split).is_dir():
            raise UserError(
                f"{name} needs the folder {printable(root / kind / split)}, which does not exist; name the "
                f"folder above {IMAGE} by --root (for Detectron2's names the one above cityscapes)"
            )
    masks = open_cityscapes(root, split)
    pairs = [_files(Path(masks.path(number)), Path(masks.mask_path(number))) for number in range(len(masks))]
    pairs.sort(key=lambda pair: pair.image.name)
    _check_names(pairs, root / IMAGE / split)
    _check_missing(pairs, name)
    with ThreadPoolExecutor(READERS) as pool:
        contents = list(pool.map(_read, pairs))
    _check_unknown(pairs, "instanceIds.png", "ids", [content.unknown_ids for content in contents])
    _check_unknown(pairs, "polygons.json", "labels", [content.unknown_names for content in contents])
    classes = tuple(label.name for label in labels if label.counted)
    records = _records(root, split, pairs)
    if not any(record["annotations"] for record in records):
        raise UserError(f"{name} has no object of {', '.join(classes)}; give a part with instances")
    sizes = check_images(records, name)
    digest = hashlib.sha256(repr(([pair.image.name for pair in pairs], sizes)).encode())
    for content in contents:
        digest.update(content.digest)
    remarks = (*masks.remarks, *count_oddities(records))
    return DetectionSplit(name, "cityscapes", records, classes, digest.hexdigest(), remarks)


def _files(image: Path, label_ids: Path) -> _Pair:
    stem = str(label_ids).removesuffix(KINDS[0])
    return _Pair(image, {kind: Path(stem + kind) for kind in KINDS})


def _check_names(pairs: Sequence[_Pair], folder: Path) -> None:
    """Checks that the folder holds folders of cities and these only images with names of Cityscapes.

    The benchmark finds the prediction of an image by the name; Detectron2's loader takes every file for one.
    """
    entries = [entry for city in folder.iterdir() for entry in (city.iterdir() if city.is_dir() else (city,))]
    odd = sorted(entry for entry in entries if entry.parent == folder or not PATTERN.fullmatch(entry.name))
    if odd:
        raise UserError(
            f"{printable(folder)} holds {len(odd)} files that are not CITY/CITY_000000_000019_{IMAGE}.png, "
            f"{printable(odd[0].relative_to(folder))} for one; rename them or take them out"
        )
    for first, second in pairwise(pairs):
        if first.image.name == second.image.name:
            raise UserError(
                f"two cities in {printable(folder)} have an image {printable(first.image.name)}; give each "
                "image its own name"
            )


def _check_missing(pairs: Sequence[_Pair], name: str) -> None:
    for kind in KINDS:
        missing = [pair.truth[kind] for pair in pairs if not pair.truth[kind].is_file()]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(pairs)} images of {name} have no {TRUTH}_{kind}, "
                f"{printable(missing[0])} is missing for one; unpack gtFine_trainvaltest.zip again"
            )


def _read(pair: _Pair) -> _Contents:
    """Reads and checks the truth of one image."""
    labels = {label.number: label.name for label in import_cityscapes()}
    path = pair.truth["polygons.json"]
    content, data = load_json(path, f"{printable(pair.image.name)} needs the outlines", "take it out")
    height, width, names = _outlines(content, path)
    unknown_names = Counter(label for label in names if not _is_label(label, labels.values()))
    _check_size(pair.truth["labelIds.png"], height, width, path)
    _check_size(pair.truth["instanceIds.png"], height, width, path)
    ids, counts = np.unique(_ids(pair.truth["instanceIds.png"]), return_counts=True)
    pixels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    unknown_ids = Counter(
        {number: count for number, count in pixels.items() if _label_id(number) not in labels}
    )
    digest = hashlib.sha256(data + pair.truth["instanceIds.png"].read_bytes()).digest()
    return _Contents(height, width, digest, unknown_ids, unknown_names)


def _outlines(content: Any, path: Path) -> tuple[int, int, list[str]]:
    """Height and width of the image, and the labels of the outlines that are not deleted."""
    try:
        height, width, objects = (content[key] for key in ("imgHeight", "imgWidth", "objects"))
        kept = [item for item in objects if "deleted" not in item]
        if not all(isinstance(item["label"], str) for item in kept):
            raise TypeError("a label is no text")
        names = [item["label"] for item in kept]
        corners = [np.asarray(item["polygon"], np.float64).reshape(-1, 2) for item in kept]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{printable(path)} holds no outlines of Cityscapes ({type(error).__name__}: {error}); restore it"
        ) from error
    if not all(type(side) is int and 0 < side <= MOST_SIDE for side in (height, width)):
        raise UserError(
            f"{printable(path)} says that its image has {shown(width)} x {shown(height)} pixels; restore it"
        )
    for label, points in zip(names, corners, strict=True):
        if len(points) < 3 or not np.isfinite(points).all():
            raise UserError(
                f"an outline of the label {printable(label)} in {printable(path)} has {len(points)} points, "
                "or one that is no number; an outline needs three: mend it or take it out"
            )
        if far(points, np.array([[width, height]])).any():
            raise UserError(
                f"an outline of the label {printable(label)} in {printable(path)} has a point far from its "
                f"image of {width} x {height} pixels; mend it or take it out"
            )
    return height, width, names


def _check_size(path: Path, height: int, width: int, truth: Path) -> None:
    with _opened(path) as image:
        if image.size != (width, height):
            raise UserError(
                f"{printable(path)} has {image.width} x {image.height} pixels and {printable(truth.name)} "
                f"beside it says {width} x {height}; restore both"
            )


def _ids(path: Path) -> np.ndarray:
    """The values in instanceIds.png."""
    with _opened(path) as image:
        if image.mode not in ("I;16", "I;16B", "I", "L"):
            raise UserError(
                f"{printable(path)} has the mode {image.mode} instead of grey with 16 bits; restore it "
                "(the coloured maps of Cityscapes are other files)"
            )
        try:
            return np.asarray(image)
        except OSError as error:
            raise _unreadable(path, error) from error


def _opened(path: Path) -> Image.Image:
    refuse_special(path)
    try:
        return Image.open(path, formats=["PNG"])
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {printable(path)} ({' '.join(str(error).split())}); unpack it again")


def _label_id(number: int) -> int:
    return number // FIRST_INSTANCE if number >= FIRST_INSTANCE else number


def _is_label(name: str, known: Iterable[str]) -> bool:
    """Whether a label exists, for one object or for a group of them."""
    return name in known or (name.endswith(GROUP) and name.removesuffix(GROUP) in known)


def _check_unknown(
    pairs: Sequence[_Pair], kind: str, what: str, unknown: Sequence[Counter[int]] | Sequence[Counter[str]]
) -> None:
    """Raises UserError where a file holds ids or labels that do not exist: names and counts them."""
    total: Counter[int | str] = Counter()
    for counter in unknown:
        total.update(counter)
    if not total:
        return
    unit = "pixels" if what == "ids" else "outlines"
    named = first_few([f"{key} ({count:,} {unit})" for key, count in total.most_common()])
    first = next(pair.truth[kind] for pair, counter in zip(pairs, unknown, strict=True) if counter)
    images = sum(map(bool, unknown))
    raise UserError(
        f"{images} {kind} hold {what} that Cityscapes does not have: {named}; the first file is "
        f"{printable(first)}: mend the files or take the images out"
    )


def _records(root: Path, split: str, pairs: Sequence[_Pair]) -> list[ImageRecord]:
    """The records that Detectron2 makes of the polygons, in the order of `pairs`.

    Detectron2 begins processes for it; the check of the contents above has excluded what it fails on.
    """
    from siamtransfer.detection.detectron2.compat import import_detectron2

    import_detectron2()
    from detectron2.data.datasets.cityscapes import load_cityscapes_instances

    folders = [str(root / kind / split) for kind in (IMAGE, TRUTH)]
    try:
        loaded = load_cityscapes_instances(*folders, from_json=True, to_polygons=True)
    except Exception as error:  # shapely and its processes raise nearly anything
        raise UserError(
            f"Detectron2 makes no objects of the outlines below {folders[1]} ({type(error).__name__}: "
            f"{error}); mend the outlines"
        ) from error
    of_name = {Path(record["file_name"]).name: record for record in loaded}
    return [_record(of_name[pair.image.name], pair) for pair in pairs]


def _record(loaded: dict[str, Any], pair: _Pair) -> ImageRecord:
    return {
        "file_name": str(pair.image),
        "image_id": pair.image.name,
        "height": loaded["height"],
        "width": loaded["width"],
        "annotations": [
            {
                "bbox": list(item["bbox"]),
                "bbox_mode": int(item["bbox_mode"]),
                "category_id": item["category_id"],
                "iscrowd": int(item["iscrowd"]),
                "segmentation": item["segmentation"],
                "area": sum(map(_area, item["segmentation"])),
            }
            for item in loaded["annotations"]
        ],
        "instance_ids": str(pair.truth["instanceIds.png"]),
    }


def _area(polygon: Sequence[float]) -> float:
    """The area of a polygon x0, y0, x1, y1 … by the shoelace formula."""
    x, y = np.asarray(polygon, np.float64).reshape(-1, 2).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
