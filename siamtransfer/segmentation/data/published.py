"""Cityscapes, ADE20K and COCO-Stuff, in the layouts in which they are published.

Cityscapes: Cordts et al., arXiv 1604.01685. ADE20K: Zhou et al., arXiv 1608.05442, the scene parsing
benchmark. COCO-Stuff: Caesar et al., arXiv 1612.03716, the pixel maps of things and stuff.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from siamtransfer.data.listing import Listing, PathTable, list_images, require_folder
from siamtransfer.segmentation.data.class_values import ClassValues, numbered
from siamtransfer.segmentation.data.mask_files import MaskFiles, count_remark, pair_by_name, unused_masks
from siamtransfer.segmentation.data.masked_images import IGNORE
from siamtransfer.segmentation.data.published_classes import (
    ADE20K,
    CITYSCAPES_IDS,
    CITYSCAPES_LARGEST_ID,
    COCO_STUFF_VALUES,
)
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

CITYSCAPES_COUNTS = {"train": 2975, "val": 500}
ADE20K_COUNTS = {"train": 20_210, "val": 2000}
COCO_STUFF_COUNTS = {"train": 118_287, "val": 5000}
_CITYSCAPES_IMAGE, _CITYSCAPES_MASK = "_leftImg8bit", "_gtFine_labelIds"
_ADE20K_SPLITS = {"train": "training", "val": "validation"}
_ADE20K_OTHER = 0
_COCO_IMAGES = ("images/{split}2017", "{split}2017")
_COCO_MASKS = (
    "annotations/{split}2017",
    "stuffthingmaps/{split}2017",
    "stuffthingmaps_trainval2017/{split}2017",
)


def open_cityscapes(root: str | Path, split: str) -> MaskFiles:
    """Cityscapes' fine annotations: leftImg8bit/SPLIT/CITY and gtFine/SPLIT/CITY below `root`.

    The masks are those of label ids; the 19 classes of the benchmark get their train ids, all other ids are
    ignored.

    Raises:
        UserError: a folder or a mask is missing.
    """
    image_folder = _inner(root, (f"leftImg8bit/{split}",), "cityscapes", "leftImg8bit_trainvaltest.zip")
    mask_folder = _inner(root, (f"gtFine/{split}",), "cityscapes", "gtFine_trainvaltest.zip")
    images = _ending(list_images(image_folder), _CITYSCAPES_IMAGE)
    masks = _ending(list_images(mask_folder), _CITYSCAPES_MASK)
    numbers = {value: number for number, value in enumerate(CITYSCAPES_IDS.values())}
    others = [value for value in range(CITYSCAPES_LARGEST_ID + 1) if value not in numbers]
    values = ClassValues(tuple(CITYSCAPES_IDS), numbers, [*others, IGNORE])
    plain = _without_ending(images, _CITYSCAPES_IMAGE), _without_ending(masks, _CITYSCAPES_MASK)
    order = pair_by_name(*plain, image_folder, mask_folder, expected=f"{{}}{_CITYSCAPES_MASK}.png")
    return _pairs("cityscapes", split, (image_folder, images), (mask_folder, masks), order, values)


def open_ade20k(root: str | Path, split: str) -> MaskFiles:
    """ADE20K's scene parsing benchmark: images/ and annotations/, each with training and validation.

    `root` is the folder ADEChallengeData2016 or the one above it. Value 0, "other", is ignored; value v is
    class v - 1 of 150.

    Raises:
        UserError: a folder or a mask is missing.
    """
    part, archive = _ADE20K_SPLITS[split], "ADEChallengeData2016.zip"
    inner = [f"{above}{{}}/{part}" for above in ("", "ADEChallengeData2016/")]
    image_folder = _inner(root, [path.format("images") for path in inner], "ade20k", archive)
    mask_folder = _inner(root, [path.format("annotations") for path in inner], "ade20k", archive)
    images, masks = list_images(image_folder), list_images(mask_folder)
    order = pair_by_name(images, masks, image_folder, mask_folder)
    values = numbered(ADE20K, [_ADE20K_OTHER], first=1)
    return _pairs("ade20k", split, (image_folder, images), (mask_folder, masks), order, values)


def open_coco_stuff(root: str | Path, split: str) -> MaskFiles:
    """COCO-Stuff's pixel maps of 171 classes, things and stuff, for COCO's images of 2017.

    Images are in SPLIT2017 or images/SPLIT2017 below `root`; maps in annotations/SPLIT2017,
    stuffthingmaps/SPLIT2017 or stuffthingmaps_trainval2017/SPLIT2017. Value 255 is unlabelled and ignored.

    Raises:
        UserError: a folder or a map is missing.
    """
    image_folder, mask_folder = (
        _inner(root, [path.format(split=split) for path in inner], "coco-stuff", archive)
        for inner, archive in (
            (_COCO_IMAGES, f"{split}2017.zip"),
            (_COCO_MASKS, "stuffthingmaps_trainval2017.zip"),
        )
    )
    images = list_images(image_folder)
    masks = list_images(mask_folder)
    masks.paths = [path for path in masks.paths if not path.endswith(b"_labelTrainIds.png")]
    order = pair_by_name(images, masks, image_folder, mask_folder)
    numbers = {value: number for number, value in enumerate(COCO_STUFF_VALUES.values())}
    values = ClassValues(tuple(COCO_STUFF_VALUES), numbers, [IGNORE])
    return _pairs("coco-stuff", split, (image_folder, images), (mask_folder, masks), order, values)


_COUNTS = {"cityscapes": CITYSCAPES_COUNTS, "ade20k": ADE20K_COUNTS, "coco-stuff": COCO_STUFF_COUNTS}


def _pairs(
    name: str,
    split: str,
    images: tuple[Path, Listing],
    masks: tuple[Path, Listing],
    order: Sequence[int],
    values: ClassValues,
) -> MaskFiles:
    files = PathTable(images[0], images[1].paths)
    pairs = MaskFiles(
        name, split, files, PathTable(masks[0], [masks[1].paths[number] for number in order]), values
    )
    expected = count_remark(len(pairs), _COUNTS[name][split], f"{name}/{split}")
    pairs.remarks = [*unused_masks(masks[1], order), *expected]
    return pairs


def _inner(root: str | Path, inner: Sequence[str], name: str, archive: str) -> Path:
    """The first of the folders `inner` below `root` that exists."""
    above = require_folder(root)
    for path in inner:
        if (above / path).is_dir():
            return above / path
    raise UserError(
        f"{printable(above)} holds no folder {' or '.join(inner)} of {name}: unpack {archive} there, or give "
        "the folder above in data.root"
    )


def _ending(listing: Listing, end: str) -> Listing:
    """The files of a listing whose names end so, before .png."""
    return Listing([path for path in listing.paths if path.endswith(os.fsencode(f"{end}.png"))])


def _without_ending(listing: Listing, end: str) -> Listing:
    return Listing([path.removesuffix(os.fsencode(f"{end}.png")) + b".png" for path in listing.paths])
