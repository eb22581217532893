"""`open_dataset` takes a name, a folder, a Dataset, a list or an array."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import siamtransfer.data
from siamtransfer.data import from_array, open_dataset, open_labelled
from siamtransfer.data.folders import FlatFolder
from siamtransfer.data.lists import ListedImages
from siamtransfer.utils.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)


def test_a_name_gives_train_and_test() -> None:
    train, test = open_dataset("fashion-scenes", size=16, count=20)
    expected = open_labelled("fashion-scenes", size=16, count=20)
    assert test is not None and expected[1] is not None
    assert (train.fingerprint, test.fingerprint) == (expected[0].fingerprint, expected[1].fingerprint)
    alone, nothing = open_dataset("fashion-objects", split="test")
    assert (alone.split, nothing) == ("test", None)


def test_a_folder_is_of_classes_where_it_has_subfolders(shapes_folder: Path, tmp_path: Path) -> None:
    train, test = open_dataset(shapes_folder)
    assert (train.name, train.classes, test) == ("folder", ("left", "upper"), None)
    for split in ("train", "val"):
        shutil.copytree(shapes_folder, tmp_path / split)
    train, test = open_dataset(str(tmp_path))
    assert test is not None and (train.split, test.split) == ("train", "val")
    flat, nothing = open_dataset(shapes_folder / "left")
    assert isinstance(flat, FlatFolder) and flat.labels is None and nothing is None
    assert open_dataset("flat", root=shapes_folder)[0].labels is None


def test_a_text_file_is_a_list_of_paths(shapes_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("left/00.png 1\nupper/00.png 0\n")
    images, _ = open_dataset("list", root=shapes_folder, list_file=tmp_path / "list.txt")
    assert isinstance(images, ListedImages) and len(images) == 2
    (shapes_folder_copy := tmp_path / "copy").mkdir()
    shutil.copytree(shapes_folder, shapes_folder_copy, dirs_exist_ok=True)
    shutil.copy(tmp_path / "list.txt", shapes_folder_copy)
    assert open_dataset(shapes_folder_copy / "list.txt")[0].fingerprint == images.fingerprint


def test_an_image_file_is_a_set_of_one(shapes_folder: Path) -> None:
    path = next(iter(sorted((shapes_folder / "left").iterdir())))
    images, nothing = open_dataset(path)
    assert (len(images), images.labels, images.describe(0), nothing) == (1, None, str(path), None)
    assert np.array_equal(images.image(0), np.asarray(Image.open(path).convert("RGB")))
    with pytest.raises(UserError, match=r"a single image, which has no split val"):
        open_dataset(path, split="val")
    with pytest.raises(UserError, match=r"data.size: image files that are named one by one do not take it"):
        open_dataset(path, size=3)


def test_objects_give_one_set() -> None:
    labels = [1, 0, 0, 1]
    sets = [
        open_dataset(PIXELS, labels=labels),
        open_dataset([Image.fromarray(pixels) for pixels in PIXELS], labels=labels),
        open_dataset(TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.tensor(labels))),
    ]
    for images, test in sets:
        assert test is None and images.labels is not None
        assert images.labels.tolist() == labels
        assert all(np.array_equal(images.image(index), PIXELS[index]) for index in range(4))
    images = from_array(PIXELS)
    assert open_dataset(images) == (images, None)
    assert open_dataset(PIXELS, split="test", name="mine")[0].describe(0) == "mine/test[0]"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("cifar11", {}, "no set 'cifar11'; did you mean cifar10"),
        ("cifar11", {"root": "."}, "no set 'cifar11'"),
        ("no/such/folder", {}, "no set 'no/such/folder'"),
        ("fashion-scenes", {"split": "val"}, "no split 'val'"),
        ("fashion-scenes", {"labels": [1]}, "labels belong to a list or an array"),
        (PIXELS, {"root": "."}, "root is the folder of a named set"),
        (from_array(PIXELS), {"name": "x"}, "leave out name"),
        (TensorDataset(torch.zeros(1, 3, 5, 5)), {"labels": [1]}, "a Dataset has its own"),
        (3, {}, "a int is no source of images"),
    ],
)
def test_mistakes_are_one_sentence(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset(source, **options)


def test_the_package_lists_its_names() -> None:
    assert set(siamtransfer.data.__all__) <= set(dir(siamtransfer.data))
    for name in siamtransfer.data.__all__:
        assert getattr(siamtransfer.data, name).__module__.startswith("siamtransfer.data.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = siamtransfer.data.nothing
