"""Pascal VOC 2012 for semantic segmentation, plain and with the augmented annotations.

VOC2012 (Everingham et al., IJCV 2015) has 1,464 images for training, 1,449 for validation and 2,913 in both.
The augmented annotations are those of Hariharan et al. (ICCV 2011) as VOC masks, in SegmentationClassAug; the
images of the list trainaug, 10,582, are those of VOC's train and of the added masks, without VOC's val.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from siamtransfer.data.listing import PathTable, has_image_ending, list_images, require_folder
from siamtransfer.data.voc_files import NamedFiles, read_lines, read_names
from siamtransfer.segmentation.data.class_values import ClassValues, numbered, read_class_list
from siamtransfer.segmentation.data.mask_files import MaskFiles, count_remark
from siamtransfer.segmentation.data.masked_images import IGNORE
from siamtransfer.segmentation.data.published_classes import VOC
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

VOC_COUNTS = {"train": 1464, "val": 1449, "trainval": 2913}
AUGMENTED_COUNTS = {"train": 10_582, "val": 1449}
FOLDERS = ("VOCdevkit/VOC2012", "VOC2012", ".", "VOCdevkit/VOC2007", "VOC2007")
PLAIN, AUGMENTED = "SegmentationClass", "SegmentationClassAug"
LISTS = "ImageSets/Segmentation"
AUGMENTED_LISTS = tuple(
    f"{folder}{name}.txt"
    for folder in (f"{LISTS}/", "ImageSets/SegmentationAug/", "")
    for name in ("trainaug", "train_aug")
)


def open_voc2012(
    root: str | Path, split: str, *, classes: str | Path | None = None, ignore: int | None = None
) -> MaskFiles:
    """VOC2012 of SegmentationClass; `root` holds VOCdevkit/VOC2012 or is that folder.

    `classes` is a class list for other data in this layout.

    Raises:
        UserError: a folder, a list or a file is missing.
    """
    folder = _find(root)
    names = _read_list(folder / LISTS / f"{split}.txt")
    masks = [f"{PLAIN}/{name}.png" for name in names]
    pairs = MaskFiles(
        "voc2012", split, _images(folder, names), _table(folder, masks), _values(classes, ignore)
    )
    pairs.remarks = [] if classes else count_remark(len(names), VOC_COUNTS[split], f"VOC2012's {split}")
    return pairs


def open_voc2012_augmented(
    root: str | Path, split: str, *, classes: str | Path | None = None, ignore: int | None = None
) -> MaskFiles:
    """VOC2012 with the augmented annotations: train is trainaug, val is VOC's val.

    A mask is taken from SegmentationClassAug or, where that has none of the image, from SegmentationClass.
    Without a list trainaug the images are those of VOC's train and of the added masks, without VOC's val; a
    remark says so.

    Raises:
        UserError: a folder, a list or a file is missing.
    """
    folder = _find(root)
    added = folder / AUGMENTED
    if not added.is_dir():
        raise UserError(
            f"{printable(added)} is missing: unpack the augmented annotations, SegmentationClassAug, beside "
            f"{PLAIN}, or take voc2012 without them"
        )
    inside = {os.fsdecode(path).removesuffix(".png") for path in list_images(added, nested=False).paths}
    remarks: list[str] = []
    if split == "train":
        names, remarks = _augmented_names(folder, inside)
    else:
        names = _read_list(folder / LISTS / f"{split}.txt")
    masks = [f"{AUGMENTED if name in inside else PLAIN}/{name}.png" for name in names]
    pairs = MaskFiles(
        "voc2012-aug", split, _images(folder, names), _table(folder, masks), _values(classes, ignore)
    )
    expected = [] if classes else count_remark(len(names), AUGMENTED_COUNTS[split], f"the augmented {split}")
    pairs.remarks = [*remarks, *expected]
    return pairs


def _augmented_names(folder: Path, inside: set[str]) -> tuple[list[str], list[str]]:
    """The names of trainaug, and a remark where there is no list of them."""
    for list_name in AUGMENTED_LISTS:
        if (folder / list_name).is_file():
            return _read_list(folder / list_name), []
    train, val = (_read_list(folder / LISTS / f"{split}.txt") for split in ("train", "val"))
    names = sorted((set(train) | inside) - set(val))
    made = f"{printable(folder / AUGMENTED_LISTS[0])} is missing; train is VOC's train and the added masks"
    return names, [f"{made} without VOC's val, which is how that list was made"]


def _values(classes: str | Path | None, ignore: int | None) -> ClassValues:
    if classes is not None:
        return read_class_list(classes, ignore)
    return numbered(VOC, [IGNORE if ignore is None else ignore])


def _find(root: str | Path) -> Path:
    """The folder of the year, with the lists of images."""
    above = require_folder(root)
    for inner in FOLDERS:
        if (above / inner / LISTS).is_dir():
            return above / inner if inner != "." else above
    raise UserError(
        f"{printable(above)} holds no {FOLDERS[0]} with {LISTS}: unpack VOCtrainval_11-May-2012.tar there, "
        "or give the folder that holds VOCdevkit in data.root"
    )


def _read_list(path: Path) -> list[str]:
    """The names of images in a list; of lines with two paths (image, mask) the image's name."""
    names = [_name(line.split()[0]) for line in read_lines(path)]
    if not names:
        raise UserError(f"{printable(path)} lists no images; unpack the set again")
    return read_names(path, names)


def _name(path: str) -> str:
    """The name of an image's file, without the folder and an image's ending."""
    file = path.rpartition("/")[2]
    return file.rpartition(".")[0] if has_image_ending(file) and "." in file else file


def _images(folder: Path, names: Sequence[str]) -> PathTable:
    files = NamedFiles(folder / "JPEGImages", "jpg")
    return _table(folder, [f"JPEGImages/{files.relative(name)}" for name in names])


def _table(folder: Path, paths: Sequence[str]) -> PathTable:
    return PathTable(folder, [os.fsencode(path) for path in paths])
