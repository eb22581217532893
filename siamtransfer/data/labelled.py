"""The train and test sets of a source; every evaluation learns from one and is scored on the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.data.class_names import match_to_train
from siamtransfer.data.containers.contained import ContainedImages
from siamtransfer.data.containers.splits import TEST_SPLITS
from siamtransfer.data.files_form import found_options
from siamtransfer.data.imageset import ImageSet, require_same_classes
from siamtransfer.data.registry import NAMED, open_images
from siamtransfer.utils.errors import UserError


def open_pair(
    name: str, *, root: str | Path | None = None, test_split: str | None = None, **options: Any
) -> tuple[ImageSet, ImageSet | None]:
    """(train, test) of a set; test is None where there is none, and where train itself is to be scored: an
    image must not be its own neighbour, or a row that a classifier has learned from.

    `test_split` None takes the set's own test or validation split. `options` go to `open_images` for the
    train split; a rendered test set keeps its own default count.

    Raises:
        UserError: as `open_images`, or the two splits have different classes.
    """
    train = open_images(name, root=root, split="train", **options)
    split = test_split or find_test_split(name, root, options.get("parts"))
    if split in (None, train.split):
        return train, None
    test_options = {key: value for key, value in options.items() if key not in ("count", "list_file")}
    test_options |= found_options(train)  # one depth for both, or equal values would not be equally bright
    test = open_images(name, root=root, split=split, **test_options)
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


def _adopt_classes(train: ImageSet, test: ImageSet) -> None:
    """Gives the test images of a container the labels of train, whose classes may be more.

    A folder or an archive of class folders has done so when it was opened. Others name their classes alone.

    Raises:
        UserError: a class of the test images is none of train's.
    """
    if not isinstance(test, ContainedImages) or train.labels is None or test.labels is None:
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
