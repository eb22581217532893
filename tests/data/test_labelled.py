"""The labelled pair that evaluations and the monitor use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from siamtransfer.data import open_labelled
from siamtransfer.utils.errors import UserError


def test_embedded_scenes_have_a_test_part_of_their_own_size() -> None:
    train, test = open_labelled("fashion-scenes", size=32, count=30)
    assert test is not None
    assert (len(train), train.split, test.split) == (30, "train", "test")
    assert len(test) != 30, "the number of train images says nothing about the test images"
    assert test.image(0).shape == (32, 32, 3), "but the size does"
    assert train.classes == test.classes


def test_train_is_scored_against_itself_without_each_image(shapes_folder: Path, tmp_path: Path) -> None:
    assert open_labelled("fashion-scenes", size=32, count=30, test_split="train")[1] is None
    root = split_folder(tmp_path, shapes_folder, "train", "val")
    assert open_labelled("folder", root=root, test_split="train")[1] is None


def split_folder(root: Path, shapes: Path, *parts: str) -> Path:
    for part in parts:
        shutil.copytree(shapes, root / part)
    return root


def test_folders_use_their_test_or_validation_part(shapes_folder: Path, tmp_path: Path) -> None:
    root = split_folder(tmp_path, shapes_folder, "train", "val", "other")
    assert open_labelled("folder", root=root)[1].split == "val"  # type: ignore[union-attr]
    split_folder(tmp_path, shapes_folder, "test")
    assert open_labelled("folder", root=root)[1].split == "test"  # type: ignore[union-attr]
    assert open_labelled("folder", root=root, test_split="other")[1].split == "other"  # type: ignore[union-attr]


def test_a_folder_without_parts_is_scored_against_itself(shapes_folder: Path) -> None:
    train, test = open_labelled("folder", root=shapes_folder)
    assert test is None
    assert train.labels is not None
    assert len(train) == len(train.labels) == 40


def test_sets_without_labels_and_parts_of_other_classes_are_refused(
    shapes_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no labels"):
        open_labelled("flat", root=shapes_folder)
    root = split_folder(tmp_path, shapes_folder, "train", "test")
    (root / "test" / "left").rename(root / "test" / "right")
    with pytest.raises(UserError, match=r"not among those of train \(right\)"):
        open_labelled("folder", root=root)
