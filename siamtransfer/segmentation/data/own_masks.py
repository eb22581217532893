"""A folder of one's own with images and masks, in one of the usual layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siamtransfer.data.listing import PathTable, list_folders, list_images, require_folder
from siamtransfer.data.parts import PART_NAMES
from siamtransfer.segmentation.data.class_values import read_class_list
from siamtransfer.segmentation.data.mask_files import MaskFiles, pair_by_name, unused_masks
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

IMAGE_FOLDERS = ("images", "image", "imgs", "img_dir", "JPEGImages")
MASK_FOLDERS = ("masks", "mask", "annotations", "labels", "ann_dir", "SegmentationClass")
_KINDS = (IMAGE_FOLDERS, MASK_FOLDERS)
CLASS_LIST = "classes.txt"
PAIR = "@"
LAYOUTS = (
    "ROOT/images/SPLIT and ROOT/masks/SPLIT, ROOT/SPLIT/images and ROOT/SPLIT/masks, ROOT/images and "
    "ROOT/masks (split train only), or IMAGES@MASKS"
)


def open_own_masks(
    root: str | Path, split: str, *, classes: str | Path | None = None, ignore: int | None = None
) -> MaskFiles:
    """Images and masks in one of LAYOUTS; a mask has the relative path of its image, with another ending.

    `classes` is the class list (see `read_class_list`), by default classes.txt beside the folders; `ignore`
    the value of ignored pixels in the files.

    Raises:
        UserError: no layout fits, a mask is missing, or the class list is not right.
    """
    image_folder, mask_folder = _find_folders(root, split)
    beside = [folder / CLASS_LIST for folder in (*mask_folder.parents[:2], image_folder.parent)]
    class_list = classes or next((path for path in beside if path.is_file()), None)
    if class_list is None:
        raise UserError(
            f"data.classes: the masks in {printable(mask_folder)} need a class list; name a text file with a "
            f"class a line, in the order of the values from 0, or put it at {printable(beside[0])}"
        )
    values = read_class_list(class_list, ignore)
    images, masks = list_images(image_folder), list_images(mask_folder)
    for folder, listing in ((image_folder, images), (mask_folder, masks)):
        if not listing.paths:
            raise UserError(f"{printable(folder)} holds no image files; check data.root")
    order = pair_by_name(images, masks, image_folder, mask_folder)
    files = PathTable(image_folder, images.paths)
    pairs = MaskFiles(
        "masks", split, files, PathTable(mask_folder, [masks.paths[number] for number in order]), values
    )
    pairs.remarks = unused_masks(masks, order)
    return pairs


def _find_folders(root: str | Path, split: str) -> tuple[Path, Path]:
    """The folder of the images and that of the masks."""
    if PAIR in str(root) and not Path(root).expanduser().exists():
        first, _, second = str(root).partition(PAIR)
        return _in_split(require_folder(first), require_folder(second), split)
    folder = require_folder(root)
    for above in (folder / split, folder):
        found = [_folder_named(above, names) for names in _KINDS]
        image_folder, mask_folder = found
        if image_folder is None or mask_folder is None:
            continue
        if above != folder:
            return image_folder, mask_folder
        return _in_split(image_folder, mask_folder, split)
    inside = first_few(list_folders(folder)) or "no folders"
    raise UserError(
        f"{printable(folder)} holds {printable(inside)}, which is no layout of images and masks for the "
        f"split {split}; arrange them as {LAYOUTS}"
    )


def _folder_named(above: Path, names: Sequence[str]) -> Path | None:
    """The first of the folders `names` in `above`; where there is none, one of them in another case."""
    if not above.is_dir():
        return None
    there = list_folders(above)
    lower = {name.lower() for name in names}
    chosen = next((name for name in names if name in there), None)
    chosen = chosen or next((name for name in there if name.lower() in lower), None)
    return None if chosen is None else above / chosen


def _in_split(image_folder: Path, mask_folder: Path, split: str) -> tuple[Path, Path]:
    """The folders of a split inside these two, or these where they are not divided and the split is train."""
    inner = (image_folder / split, mask_folder / split)
    if all(path.is_dir() for path in inner):
        return inner
    if split == "train" and not _has_splits(image_folder):
        return image_folder, mask_folder
    raise UserError(_no_split(image_folder, mask_folder, split))


def _has_splits(folder: Path) -> bool:
    """Whether a folder of images is divided into splits, so that images of train may not be all of them."""
    return any(name in PART_NAMES for name in list_folders(folder))


def _no_split(image_folder: Path, mask_folder: Path, split: str) -> str:
    missing = next(folder / split for folder in (image_folder, mask_folder) if not (folder / split).is_dir())
    present = sorted(set(list_folders(image_folder)) & set(list_folders(mask_folder)))
    has = f"has the splits {first_few(present)}" if present else "is not divided into splits"
    return (
        f"{printable(missing)} is missing, so there is no split {split}; the folder {has}: arrange images "
        f"and masks as {LAYOUTS}"
    )
