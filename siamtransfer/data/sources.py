"""One function that opens any source of images: a name, a folder, a Dataset, a list, an array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from siamtransfer.data.class_tree import filled_folders
from siamtransfer.data.containers.splits import files_of_splits
from siamtransfer.data.depth import remark_on_set
from siamtransfer.data.from_objects import MapDataset, from_array, from_images, from_torch
from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.labelled import open_pair
from siamtransfer.data.listing import ARRAY_ENDINGS, ENDINGS, has_image_ending, list_folders, list_images
from siamtransfer.data.pixel_form import OPTIONS, pixel_form
from siamtransfer.data.registry import NAMED, open_images, unknown_set
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

Source = str | os.PathLike[str] | ImageSet | MapDataset | Sequence[Any] | np.ndarray


def open_dataset(
    source: Source,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    labels: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    **options: Any,
) -> tuple[ImageSet, ImageSet | None]:
    """(train, test) of any source of images; test is None where the source has one set only.

    Args:
        source: the name of a set (`cifar10`, `imagenet`, `flat` ...; see `siamtransfer.data.registry`), with
            its folder as `root`; a folder, whose subfolders are classes if it has any; a tar shard, a zip
            archive or a parquet file, or a folder of such, or one of Hugging Face's `save_to_disk`; a single
            image file; a text file of paths; a map-style torch Dataset; a list of PIL images or paths; an
            array uint8[N,H,W,C] or uint8[N,H,W]; or an ImageSet, which is returned as it is.
        split: opens this split alone; without it, train and the test or validation split if there is one.
        labels: integers or names, one an image, for a list or an array.
        options: `download`, `list_file`, `size`, `count`, `seed` of a named set; `name`, and `classes` of a
            Dataset, for other objects; `channels`, where an image has another number than three, and of files
            `bit_depth`, `value_range` and `axes` (see `PixelForm`).

    Raises:
        UserError: there is no such set, folder or split, an option does not belong to the source, or an image
            or label is of a wrong type.
    """
    if isinstance(source, str | os.PathLike):
        if labels is not None:
            raise UserError("labels belong to a list or an array of images; a set on disk has its own")
        return _open_by_name(source, root, split, options)
    if root is not None:
        raise UserError("root is the folder of a named set; leave it out for an object that holds images")
    if split is not None:
        options["split"] = split
    if isinstance(source, np.ndarray):
        return from_array(source, labels, **options), None
    if isinstance(source, list | tuple):
        return from_images(source, labels, **options), None
    if labels is not None:
        raise UserError("labels belong to a list or an array of images; a Dataset has its own")
    if hasattr(source, "fingerprint") and hasattr(source, "image"):
        if options:
            raise UserError(f"an ImageSet is returned as it is; leave out {', '.join(options)}")
        return cast(ImageSet, source), None
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return from_torch(cast(MapDataset, source), **options), None
    raise UserError(
        f"a {type(source).__name__} is no source of images; give a name, folder, Dataset, list or array"
    )


CONTAINERS = {".tar": "shards", ".zip": "zip", ".parquet": "parquet"}
"""Ending of a file that holds images to the name of such a set."""


def kind_of_files(path: Path) -> str | None:
    """The name of the set that a path is: of a folder see `open_dataset`; `list` of a text file; None where
    there is nothing, or a single image."""
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file() or has_image_ending(path.name, ENDINGS | ARRAY_ENDINGS):
        return None
    return CONTAINERS.get(path.suffix, "list")


def _kind_of_folder(path: Path) -> str:
    """The name of the set that a folder is: by the files in it, otherwise by its having subfolders.

    Raises:
        UserError: it holds images and files with images inside.
    """
    if any((path / name).exists() for name in ("dataset_dict.json", "state.json")):
        return "huggingface"
    plain = "folder" if list_folders(path) else "flat"
    ending = next((ending for ending in CONTAINERS if files_of_splits(path, ending)), None)
    if ending is None:
        return plain
    if filled_folders(path):  # such as the archive from which the folders were unpacked
        remark_on_set(
            f"containers beside folders {path}",
            f"{printable(path)} holds folders of images and {ending} files, which are not read; --data.name "
            f"{CONTAINERS[ending]} reads those instead",
        )
        return plain
    if list_images(path, nested=False).paths:
        raise UserError(
            f"{printable(path)} holds images and {ending} files; say which are the set, by --data.name "
            f"{plain} or --data.name {CONTAINERS[ending]}"
        )
    return CONTAINERS[ending]


def _open_by_name(
    source: str | os.PathLike[str], root: str | Path | None, split: str | None, options: dict[str, Any]
) -> tuple[ImageSet, ImageSet | None]:
    name, path = os.fspath(source), Path(source).expanduser()
    if name not in NAMED:
        if root is not None:
            raise unknown_set(name)
        kind = kind_of_files(path)
        if kind is None and path.is_file():
            return _open_file(path, split, options), None
        if kind is None:
            raise unknown_set(name)
        name = kind
        if kind == "list":
            options = {"list_file": path, **options}
        else:
            root = path
    if split is not None:
        return open_images(name, root=root, split=split, **options), None
    return open_pair(name, root=root, **options)


def open_files(
    base: Path,
    paths: Sequence[str],
    *,
    name: str = "files",
    labels: np.ndarray | None = None,
    classes: Sequence[str] = (),
    **options: Any,
) -> ImageSet:
    """The image files `paths` below `base`, in this order; `options` are those of `OPTIONS`.

    Raises:
        UserError: another option is stated, or the files have not the channels that are.
    """
    from siamtransfer.data.files_form import settle_form
    from siamtransfer.data.folders import FileImages
    from siamtransfer.data.listing import PathTable

    if others := [key for key, value in options.items() if key not in OPTIONS and value is not None]:
        raise UserError(f"data.{others[0]}: image files that are named one by one do not take it")
    table = PathTable(base, [os.fsencode(path) for path in paths])
    images = FileImages(name, "train", table, labels=labels, classes=classes)
    stated: dict[str, Any] = {key: options.get(key) for key in OPTIONS}
    settle_form(images, pixel_form(**stated), stated=stated["channels"] is not None)
    return images


def _open_file(path: Path, split: str | None, options: dict[str, Any]) -> ImageSet:
    """One image file as a set of its own, called `file`."""
    path = path.absolute()
    if split not in (None, "train"):
        raise UserError(f"{printable(path)} is a single image, which has no split {split}")
    return open_files(path.parent, [path.name], name="file", **options)
