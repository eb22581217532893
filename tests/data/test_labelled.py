"""The labelled pair that evaluations and the monitor use."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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


def test_test_images_may_lie_in_another_folder_or_list(tmp_path: Path) -> None:
    for camera, classes in (("a", ("cat", "dog", "eel")), ("b", ("dog", "eel"))):
        for name in classes:
            (tmp_path / camera / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / camera / name / f"{camera}.png")
    train, test = open_labelled("folder", root=tmp_path / "a", test_root=tmp_path / "b")
    assert train.classes == ("cat", "dog", "eel") and test is not None and test.classes == train.classes
    assert test.labels is not None and test.labels.tolist() == [1, 2]
    (tmp_path / "a.csv").write_text("a/cat/a.png,cat\na/dog/a.png,dog\na/eel/a.png,eel\n")
    (tmp_path / "b.csv").write_text("b/eel/b.png,eel\n")
    train, test = open_labelled("list", list_file=tmp_path / "a.csv", test_list_file=tmp_path / "b.csv")
    assert test is not None and test.labels is not None and test.labels.tolist() == [2]
    with pytest.raises(UserError, match=r"data\.test_root and data\.test_list_file name the images of train"):
        open_labelled("list", list_file=tmp_path / "a.csv", test_list_file=f"{tmp_path}/b/../a.csv")
    with pytest.raises(UserError, match=r"data\.column 1 is of a set of pairs, and list is none"):
        open_labelled("list", list_file=tmp_path / "a.csv", column="1")


def deep_pixels(largest: int) -> np.ndarray:
    pixels = np.full((4, 4), 800, np.uint16)
    pixels[0, 0] = largest
    return pixels


def test_other_images_of_one_camera_have_the_depth_that_was_found_in_train(tmp_path: Path) -> None:
    """Equal values are equally bright; each list alone would be shown by its own largest value."""
    for name, largest in (("train", 4000), ("test", 1000)):
        Image.fromarray(deep_pixels(largest)).save(tmp_path / f"{name}.png")
        Image.fromarray(deep_pixels(largest)[:2]).save(tmp_path / f"{name}-b.png")
        (tmp_path / f"{name}.csv").write_text(f"{name}.png,cat\n")
        (tmp_path / f"{name}-pairs.csv").write_text(f"a,b,label\n{name}.png,{name}-b.png,cat\n")
    lists: dict[str, Any] = {"list_file": tmp_path / "train.csv", "test_list_file": tmp_path / "test.csv"}
    train, test = open_labelled("list", **lists)
    assert test is not None and test.image(0)[3, 3, 0] == train.image(0)[3, 3, 0] > 0
    pairs = {key: str(path).replace(".csv", "-pairs.csv") for key, path in lists.items()}
    for column, same, other in (("1", "a", "b"), (None, "1", "2"), ("b", "2", "a")):
        _, test = open_labelled("pairs", **pairs, column=column, test_column=same)
        assert test is not None and test.image(0)[1, 1, 0] == train.image(0)[3, 3, 0]
        _, test = open_labelled("pairs", **pairs, column=column, test_column=other)  # of another camera
        assert test is not None and test.image(0)[1, 1, 0] > train.image(0)[3, 3, 0]


def test_another_depth_in_another_folder_is_remarked_on(tmp_path: Path) -> None:
    for folder, largest in (("here", 4000), ("there", 1000), ("bright", 4001)):
        (tmp_path / folder / "cat").mkdir(parents=True)
        Image.fromarray(deep_pixels(largest)).save(tmp_path / folder / "cat" / "1.png")
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("there", {}, True),
        ("bright", {}, False),
        ("there", {"bit_depth": 12}, False),
    ]
    for folder, options, remarked in cases:
        root = tmp_path / "here"
        _, test = open_labelled("folder", root=root, test_root=tmp_path / folder, **options)
        said = [remark for remark in test.set_remarks if "equally bright" in remark]  # type: ignore[union-attr]
        assert bool(said) == remarked
