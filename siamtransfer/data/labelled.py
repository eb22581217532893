"""The train and test sets of a source; every evaluation learns from one and is scored on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.data.class_names import match_to_train
from siamtransfer.data.containers.contained import ContainedImages
from siamtransfer.data.containers.splits import TEST_SPLITS
from siamtransfer.data.files_form import found_options
from siamtransfer.data.folders import FileImages
from siamtransfer.data.imageset import ImageSet, require_same_classes
from siamtransfer.data.pairs import PairImages, column_number
from siamtransfer.data.registry import NAMED, open_images
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True)
class Elsewhere:
    """Where the test images are, if not in another split of the set: other cameras, other places.

    Attributes:
        root: their folder; None: that of train.
        list_file: their list or table; None: none, or that of train for another column.
        column: of a set of pairs; None: that of train.
    """

    root: str | Path | None = None
    list_file: str | Path | None = None
    column: str | None = None


def open_pair(
    name: str,
    *,
    root: str | Path | None = None,
    test_split: str | None = None,
    column: str | None = None,
    test_root: str | Path | None = None,
    test_list_file: str | Path | None = None,
    test_column: str | None = None,
    **options: Any,
) -> tuple[ImageSet, ImageSet | None]:
    """(train, test) of a set; test is None where there is none, and where train itself is to be scored: an
    image must not be its own neighbour, or a row that a classifier has learned from.

    `test_split` None takes the set's own test or validation split. `options` go to `open_images` for the
    train split; a rendered test set keeps its own default count. Of a set of pairs both are one column: the
    first, or that of `column` and `test_column`. With `test_root` or `test_list_file` the test images are
    those of another folder or list; where that has no parts, all of it.

    Raises:
        UserError: as `open_images`, or the two splits have different classes, or the test images are those of
            train or their partners.
    """
    opened = open_images(name, root=root, split="train", **options)
    train = one_column(opened, column, "data.column")
    place = Elsewhere(test_root, test_list_file, test_column)
    if place != Elsewhere():
        if isinstance(opened, PairImages):  # in this order, whatever that of another table is
            options["columns"] = list(opened.column_names)
        return train, _open_elsewhere(train, name, root, test_split, column, place, options)
    split = test_split or find_test_split(name, root, options.get("parts"))
    if split in (None, train.split):
        return train, None
    test_options = {key: value for key, value in options.items() if key not in ("count", "list_file")}
    test_options |= found_options(train)  # one depth for both, or equal values would not be equally bright
    test = one_column(open_images(name, root=root, split=split, **test_options), column, "data.column")
    _adopt_classes(train, test)
    require_same_classes(train, test)
    return train, test


def open_labelled(
    name: str, *, root: str | Path | None = None, test_split: str | None = None, **options: Any
) -> tuple[ImageSet, ImageSet | None]:
    """As `open_pair`, for a set with labels; without a test split an evaluation is leave-one-out on train.

    Raises:
        UserError: as `open_pair`, or the set has no labels, or it is not clear which folders are classes.
    """
    train, test = open_pair(name, root=root, test_split=test_split, **options)
    if train.labels is None:
        raise UserError(
            f"the set {train.name} has no labels, so nothing can be scored on it; name a labelled one"
        )
    if doubt := getattr(train, "doubt", None):
        raise UserError(doubt)
    return train, test


def one_column(images: ImageSet, column: str | None, key: str) -> ImageSet:
    """The column of a set of pairs that the option `key` names, by default the first; another set itself.

    Raises:
        UserError: a column is named and there is none of this name.
    """
    if isinstance(images, PairImages):
        number = 0 if column is None else column_number(column, images.column_names, key)
        return images.columns[number]
    if column is not None:
        raise UserError(f"{key} {column} is of a set of pairs, and {images.name} is none: leave it out")
    return images


def _open_elsewhere(
    train: ImageSet,
    name: str,
    root: str | Path | None,
    test_split: str | None,
    column: str | None,
    place: Elsewhere,
    options: dict[str, Any],
) -> ImageSet:
    """The test images of another folder, list or column, with the classes of train."""
    list_file = options.get("list_file")
    here = _same_place(place.root or root, root) and _same_place(place.list_file or list_file, list_file)
    split = test_split or find_test_split(name, place.root or root, options.get("parts"))
    split = split or ("train" if place.list_file is None else "test")
    if here and (split == train.split or list_file is not None):
        raise UserError(
            f"data.test_column {place.column}: the rows of the test images are those of train, so each would "
            "find its own partner: name other rows by data.test_list_file or data.test_split"
            if place.column is not None
            else "data.test_root and data.test_list_file name the images of train: name others"
        )
    test_options = {key: value for key, value in options.items() if key not in ("count", "list_file")}
    one_camera = _same_column(place.column, column, options.get("columns"))
    if one_camera and place.root is None:
        test_options |= found_options(train)  # as in open_pair
    other_list = place.list_file if place.list_file is not None else (list_file if here else None)
    opened = open_images(name, root=place.root or root, split=split, list_file=other_list, **test_options)
    test = one_column(opened, place.column or column, "data.test_column")
    _adopt_classes(train, test, whatever=True)
    require_same_classes(train, test)
    if one_camera:
        _remark_on_depths(train, test)
    return test


def _same_column(wanted: str | None, column: str | None, names: Sequence[str] | None) -> bool:
    """Whether the test images are of the column of train, which may be named by name or by number."""
    if wanted is None or names is None:
        return wanted == column or wanted is None
    first = 0 if column is None else column_number(column, names, "data.column")
    return column_number(wanted, names, "data.test_column") == first


def _remark_on_depths(train: ImageSet, test: ImageSet) -> None:
    """Remarks on test images of another folder in which another depth was found than in train."""
    found = [found_options(images) for images in (train, test)]
    if isinstance(test, ContainedImages | FileImages) and all(found) and found[0] != found[1]:
        said = [
            ", ".join(f"{key} {value}" for key, value in each.items() if value is not None) for each in found
        ]
        remark = (
            f"{test.name}/{test.split}: each part is read by the depth that was found in its own files "
            f"({said[1]} here, {said[0]} in train), so equal values are not equally bright: --data.bit-depth "
            "or --data.value-range states one for both"
        )
        test.set_remarks = (*test.set_remarks, remark)


def _same_place(first: str | Path | None, second: str | Path | None) -> bool:
    if first is None or second is None:
        return first is second
    return Path(first).expanduser().resolve() == Path(second).expanduser().resolve()


def _adopt_classes(train: ImageSet, test: ImageSet, *, whatever: bool = False) -> None:
    """Gives the test images of a container the labels of train, whose classes may be more; or of any set of
    files, where they are `whatever` images.

    A folder or an archive of class folders has done so when it was opened. Others name their classes alone.

    Raises:
        UserError: a class of the test images is none of train's.
    """
    if (
        not isinstance(test, ContainedImages | FileImages if whatever else ContainedImages)
        or train.labels is None
        or test.labels is None
    ):
        return
    if train.classes == test.classes:
        return
    present = np.unique(test.labels)
    names = [test.classes[label] for label in present]
    labels, remarks = match_to_train(names, train.classes, test.split, f"the set {test.name}")
    new_labels = np.array([labels[name] for name in names], dtype=np.int64)
    test.labels = new_labels[np.searchsorted(present, test.labels)]
    test.classes = train.classes
    test.set_remarks = (*test.set_remarks, *remarks)


def find_test_split(name: str, root: str | Path | None, parts: str | None) -> str | None:
    """The test or validation split of a set in NAMED; None where it has none."""
    entry = NAMED[name]
    if entry.splits is not None:
        return next((split for split in TEST_SPLITS if split in entry.splits), None)
    if entry.find_parts is None or root is None or parts == "none":
        return None
    there = entry.find_parts(Path(root).expanduser().absolute())
    return next((split for split in TEST_SPLITS if split in there), None) if "train" in there else None
