"""The labelled pair behind every evaluation: a bank to learn from and a test set to be scored on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siamtransfer.data.imageset import ImageSet, require_same_classes
from siamtransfer.data.registry import NAMED, open_images
from siamtransfer.utils.errors import UserError

TEST_SPLITS = ("test", "val", "valid", "validation")


def open_labelled(
    name: str, *, root: str | Path | None = None, test_split: str | None = None, **options: Any
) -> tuple[ImageSet, ImageSet | None]:
    """(train, test) of a labelled set; test is None where there is none, for leave-one-out.

    `test_split` None takes the set's own test or validation part. `options` go to `open_images` for the
    train part; a rendered test set keeps its own default count.

    Raises:
        UserError: the set has no labels, or its parts have different classes.
    """
    train = open_images(name, root=root, split="train", **options)
    if train.labels is None:
        raise UserError(
            f"the set {train.name} has no labels, so nothing can be scored on it; name a labelled one"
        )
    split = test_split or _find_test_split(name, root)
    if split is None:
        return train, None
    kept = {key: value for key, value in options.items() if key not in ("count", "list_file")}
    test = open_images(name, root=root, split=split, **kept)
    require_same_classes(train, test)
    return train, test


def _find_test_split(name: str, root: str | Path | None) -> str | None:
    splits = NAMED[name].splits
    if splits is not None:
        return next((split for split in TEST_SPLITS if split in splits), None)
    if name == "folder" and root is not None and (Path(root) / "train").is_dir():
        return next((split for split in TEST_SPLITS if (Path(root) / split).is_dir()), None)
    return None
