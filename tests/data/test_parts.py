"""Parts of a set as people name them, classes that look like parts, gaps in classes, and orders of "
"classes."""

from __future__ import annotations

import os
import re
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data import open_images, open_labelled
from siamtransfer.data.containers.splits import files_of_splits
from siamtransfer.data.containers.zip_images import ZipImages
from siamtransfer.data.folders import ClassFolder
from siamtransfer.data.imageset import ImageSet, require_same_images
from siamtransfer.data.parts import part_in, part_of
from siamtransfer.data.sources import kind_of_files
from siamtransfer.utils.errors import UserError

NAMES = {
    "train": ["Train", "TRAIN", "training", "train_images", "01_train", "Training Set", "trainset",
              "train2017", "(train)", "TrainData", "trainval"],
    "val": ["Val", "valid_set", "Validation", "dev", "eval", "VALID", "val_256", "development"],
    "test": ["testing", "test set", "holdout", "Tests", "hold-out", "test1"],
    None: ["bus", "invalid", "train_station", "contest", "trains", "evil", "devil", "images", "train-test"],
}  # fmt: skip


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in NAMES.items() for name in names])
def test_names_of_parts(part: str | None, name: str) -> None:
    assert part_of(name) == part


def test_a_part_among_other_words() -> None:
    assert part_in("flowers-train-000012") == "train" and part_in("ILSVRC2012_img_val") == "val"
    assert part_in("train-test-split") is None


def tree(root: Path, *names: str) -> Path:
    """Empty files: the layout alone is looked at. A name that ends in a slash is an empty folder."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return root


def classes(*parts: str, names: tuple[str, ...] = ("ant", "bee")) -> list[str]:
    return [f"{part}/{name}/{number}.jpg" for part in parts for name in names for number in range(2)]


def pair(root: Path) -> tuple[ClassFolder, ClassFolder | None]:
    """Train and test by their folders; the form of the pixels is not settled, as the files are empty."""
    from siamtransfer.data.labelled import find_test_split

    split = find_test_split("folder", root, None)
    return ClassFolder(root), None if split is None else ClassFolder(root, split)


@pytest.mark.parametrize(
    ("train", "test", "split"),
    [
        ("Train", "Val", "val"),
        ("training", "testing", "test"),
        ("train_images", "test_images", "test"),
        ("01_train", "02_valid_set", "val"),
        ("TRAIN", "dev", "val"),
        ("train", "holdout", "test"),
        ("train", "valid", "valid"),
        ("flowers_train", "flowers_test", "test"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val", "val"),
    ],
)
def test_parts_are_never_two_classes(train: str, test: str, split: str, tmp_path: Path) -> None:
    first, second = pair(tree(tmp_path, *classes(train, test)))
    assert first.classes == ("ant", "bee") and (first.split, len(first)) == ("train", 4)
    assert second is not None and (second.split, second.classes, len(second)) == (split, ("ant", "bee"), 4)
    assert second.describe(0) == str(tmp_path / test / "ant/0.jpg")


def test_a_part_can_be_asked_for_by_any_of_its_names(tmp_path: Path) -> None:
    tree(tmp_path, *classes("Training", "Validation", "minival"))
    for split in ("val", "valid", "Validation"):
        assert ClassFolder(tmp_path, split).describe(0).startswith(str(tmp_path / "Validation"))
    assert ClassFolder(tmp_path, "minival").split == "minival"


VEHICLES = ["train/1.jpg", "bus/1.jpg", "car/1.jpg"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (VEHICLES, ("bus", "car", "train")),
        (["valid/1.jpg", "invalid/1.jpg"], ("invalid", "valid")),
        (["test/1.jpg", "control/1.jpg"], ("control", "test")),
        (["steam_train/1.jpg", "toy_train/1.jpg"], ("steam_train", "toy_train")),
    ],
)
def test_classes_that_are_called_like_parts(
    names: list[str], expected: tuple[str, ...], tmp_path: Path
) -> None:
    train, test = pair(tree(tmp_path, *names))
    assert train.classes == expected and test is None


REFUSED: dict[str, tuple[list[str], str]] = {
    "two for one": (classes("train", "Training"), r"Training, train in .* mean the part train"),
    "two for val": (classes("train", "val", "validation"), "all mean the part val"),
    "class or part": ([*classes("train"), "bus/1.jpg"],
                      r"may be parts of the set, and bus; .*--data\.parts none"),
    "flat and other": (["train/1.jpg", "test/1.jpg", "bus/1.jpg"], r"may be parts of the set, and bus"),
    "class and part in one": (["cat_train/1.jpg", "cat_test/1.jpg", "dog_train/1.jpg", "dog_test/1.jpg"],
                              "name a class and a part at once"),
    "parts inside classes": (classes("cat/train", "cat/test", "dog/train", "dog/test"),
                             r"hold parts \(cat has test, train\); put the parts above"),
    "one folder too high": (classes("data/train", "data/val"), r"give --data\.root .*/data$"),
    "images beside labels": ([*classes("images/train", "images/val"), "labels/train/1.txt"],
                             r"give --data\.root .*/images$"),
    "folders too high": (classes("a/b/train", "a/b/val"), r"give --data\.root .*/a/b$"),
    "nothing in train": ([*classes("val"), "train/ant/", "train/bee/"], "no images below .*/train; "),
    "no train": (classes("val", "test"), "its splits are val, test; rename the one to learn from to train"),
    "not sorted": (["train/1.jpg", "val/1.jpg"], "train holds no class folders; .*--data.name flat"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_parts_or_classes_is_refused(case: str, tmp_path: Path) -> None:
    names, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        ClassFolder(tree(tmp_path, *names))
    assert "\n" not in str(caught.value)


def test_folders_are_classes_where_that_is_said(tmp_path: Path) -> None:
    tree(tmp_path, *classes("train", "test"), "bus/1.jpg")
    images = ClassFolder(tmp_path, parts="none")
    assert images.classes == ("bus", "test", "train") and len(images) == 9
    with pytest.raises(UserError, match="no split test"):
        ClassFolder(tmp_path, "test", parts="none")


def test_folders_beside_parts(tmp_path: Path) -> None:
    tree(tmp_path, *classes("Train", "Test"), "extra/1.jpg", "notes/x.txt", "Validierung/ant/1.jpg")
    images = ClassFolder(tmp_path)
    assert (len(images), images.classes) == (4, ("ant", "bee"))
    assert ["Validierung beside them" in remark for remark in images.set_remarks] == [True]


def test_a_test_part_without_labels_is_not_scored(tmp_path: Path) -> None:
    train, test = pair(tree(tmp_path, *classes("train"), "test/1.jpg"))
    assert test is None and "test names a part and holds no class folders" in train.set_remarks[0]


@pytest.mark.parametrize("folder", [[], ["val/bee/"], ["val/bee/x.txt"]])
def test_a_class_without_images_in_val(folder: list[str], tmp_path: Path) -> None:
    names = ("ant", "bee", "cow")
    tree(tmp_path, *classes("train", names=names), *classes("val", names=("ant", "cow")), *folder)
    train, val = pair(tmp_path)
    assert val is not None and val.classes == train.classes == names
    assert val.labels is not None and val.labels.tolist() == [0, 0, 2, 2]
    assert val.set_remarks == (
        "1 of the 3 classes have no image in val (bee), so nothing is measured on them",
    )


def test_a_class_without_images_in_train_is_none(tmp_path: Path) -> None:
    tree(tmp_path, *classes("train", "val"), "train/dog/", "train/lost+found/", "val/dog/")
    train, val = pair(tmp_path)
    assert val is not None and val.classes == train.classes == ("ant", "bee")
    assert "2 folders" in train.set_remarks[0] and "(dog, lost+found)" in train.set_remarks[0]
    tree(tmp_path, "val/dog/1.jpg")
    with pytest.raises(UserError, match=r"not among those of train \(dog\), .* put images of it into train"):
        pair(tmp_path)


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    tree(tmp_path, *classes("train", names=(composed, "bee")), *classes("val", names=(decomposed, "bee")))
    train, val = pair(tmp_path)
    assert val is not None and val.classes == train.classes == ("bee", composed)
    assert val.labels is not None and val.labels.tolist() == [0, 0, 1, 1]
    assert decomposed in val.describe(3) and "other bytes of the same letters" in val.set_remarks[0]
    assert rf"1 classes of val ({decomposed} (cafe\u0301)) have the names of train" in val.set_remarks[0]
    tree(tmp_path, f"train/{decomposed}/1.jpg")
    with pytest.raises(UserError, match=r"look the same, \S+ \(cafe\\u0301\) and \S+ \(caf\\xe9\), and"):
        ClassFolder(tmp_path)


def test_classes_that_differ_in_case(tmp_path: Path) -> None:
    tree(tmp_path, *classes("train", names=("Ant", "ant", "bee")), *classes("val", names=("Bee",)))
    assert (
        "classes differ only in upper and lower case, blanks, dashes or zeros before a number (Ant and ant)"
        in ClassFolder(tmp_path).set_remarks[0]
    )
    with pytest.raises(UserError, match=r"not among those of train \(Bee\), .* train has bee"):
        ClassFolder(tmp_path, "val")


def test_number_folders_are_sorted_as_numbers(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{number}/{number}.jpg" for number in range(12)))
    images = ClassFolder(tmp_path)
    assert images.classes == tuple(map(str, range(12)))
    assert [images.relative_name(index) for index in range(12)] == [f"{n}/{n}.jpg" for n in range(12)]
    assert images.labels is not None and images.labels.tolist() == list(range(12))


def test_numbers_with_zeros_before_them_are_texts(tmp_path: Path) -> None:
    tree(tmp_path, "007/1.jpg", "12/1.jpg", "1/1.jpg")
    assert ClassFolder(tmp_path).classes == ("007", "1", "12")


def test_number_folders_beside_names_of_train(tmp_path: Path) -> None:
    """ImageNet-V2 in the place of ImageNet's val."""
    tree(tmp_path, *classes("train", names=("n01", "n02")), *classes("val", names=("0", "1")))
    with pytest.raises(UserError, match=r"position of a class in the sorted names \(as in ImageNet-V2\)"):
        ClassFolder(tmp_path, "val")


def test_classes_that_hold_the_same_folders_are_remarked(tmp_path: Path) -> None:
    four = ("lake", "moor", "shore", "wood")
    images = ClassFolder(tree(tmp_path, *classes(*four)))
    assert images.classes == four and "the same names (ant, bee)" in images.set_remarks[0]


DOUBTFUL: dict[str, tuple[list[str], str]] = {
    "another language": ([*classes("Тренировка", names=("кот", "пёс")), *classes("Тест", names=("кот",))],
                         r"the same names \(кот, пёс\); .* --data\.parts none"),
    "numbered folds": (classes("fold1", "fold2", "fold3", "fold4"), r"same names \(ant, bee\); .*parts none"),
    "classes in common": ([*classes("Lern"), "Lern/cow/1.jpg", *classes("Mess"), "Mess/dog/1.jpg"],
                          r"the same names \(ant, bee\); .*rename the former"),
    "one folder too high": (classes("flowers/all"), r"classes are ant, bee, give --data.root .*/all, "),
}  # fmt: skip


@pytest.mark.parametrize("case", DOUBTFUL)
def test_nothing_is_scored_by_folders_that_may_be_no_classes(case: str, tmp_path: Path) -> None:
    """They are images all the same: photographs lie in folders of years and months."""
    names, message = DOUBTFUL[case]
    for name in names:
        paint(tmp_path / name.replace(".jpg", ".png"), 7)
    with pytest.raises(UserError, match=message):
        open_labelled("folder", root=tmp_path)
    images = open_images("folder", root=tmp_path)
    assert len(images) == len(names) and re.search(message, images.set_remarks[0])  # type: ignore[attr-defined]
    train, _ = open_labelled("folder", root=tmp_path, parts="none")
    assert len(train) == len(names) and train.set_remarks == ()  # type: ignore[attr-defined]


def test_a_part_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    train, test = pair(tree(tmp_path, *classes("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/1.jpg"))
    assert test is not None and train.classes == test.classes == ("ant", "bee")
    assert (train.split, test.split) == ("train", "test")


@pytest.mark.parametrize(("part", "split"), [("test", "test"), ("valid", "valid"), ("Val", "val")])
def test_a_part_in_a_folder_whose_name_says_nothing(part: str, split: str, tmp_path: Path) -> None:
    train, test = pair(tree(tmp_path, *classes("train/images", f"{part}/{part}")))
    assert test is not None and train.classes == test.classes == ("ant", "bee")
    assert (train.split, test.split) == ("train", split)
    assert ClassFolder(tmp_path, parts="none").classes == tuple(sorted((part, "train")))


def test_a_part_whose_class_folders_are_empty_is_not_scored(tmp_path: Path) -> None:
    train, test = pair(tree(tmp_path, *classes("train", "val"), "test/ant/", "test/bee/x.txt"))
    assert test is not None and test.split == "val"
    assert "test holds no images in class folders" in train.set_remarks[0]


def test_parts_of_archives_are_no_classes(tmp_path: Path) -> None:
    for case, names in {"same": classes("Тренировка", "Тест"), "no train": classes("val", "test")}.items():
        with zipfile.ZipFile(tmp_path / f"{case}.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
    with pytest.raises(UserError, match=r"the same names \(ant, bee\); .* --data\.parts none"):
        open_labelled("zip", root=tmp_path / "same.zip")
    assert ZipImages(tmp_path / "same.zip", parts="none").doubt is None
    with pytest.raises(UserError, match="has no split train; its splits are val, test"):
        open_labelled("zip", root=tmp_path / "no train.zip")
    assert ZipImages(tmp_path / "no train.zip", "val").classes == ("ant", "bee")


def test_one_class_is_no_folder_around_others(tmp_path: Path) -> None:
    images = ClassFolder(tree(tmp_path, "flowers/1.jpg", *classes("flowers"), "__MACOSX/flowers/._1.jpg"))
    assert images.classes == ("flowers",) and images.doubt is None and images.set_remarks == ()


@pytest.mark.parametrize(("train", "val"), [("sea_lion", "Sea lion"), ("007", "7"), ("ant", "ant ")])
def test_classes_that_are_written_otherwise(train: str, val: str, tmp_path: Path) -> None:
    tree(tmp_path, *classes("train", names=(train, "x")), *classes("val", names=(val, "x")))
    with pytest.raises(UserError, match=f"not among those of train .* train has {train}, which is written"):
        ClassFolder(tmp_path, "val")


def paint(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


def same_set(one: ImageSet, other: ImageSet) -> bool:
    assert one.labels is not None
    assert other.labels is not None
    return (one.fingerprint, one.classes, one.labels.tolist(), one.split) == (
        other.fingerprint, other.classes, other.labels.tolist(), other.split,
    )  # fmt: skip


def test_zip_archives_are_the_trees_that_they_hold(tmp_path: Path) -> None:
    names = [
        *classes("My Set/Training", names=("2", "10", "café")),
        *classes("My Set/valid_set", names=("10",)),
    ]
    for value, name in enumerate(names):
        paint(tmp_path / name, value)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in reversed(names):
            archive.write(tmp_path / name, name)
    in_zip, in_folder = (
        open_labelled("zip", root=tmp_path / "set.zip"),
        open_labelled("folder", root=tmp_path / "My Set"),
    )
    assert same_set(in_zip[0], in_folder[0])
    assert in_zip[1] is not None and in_folder[1] is not None and same_set(in_zip[1], in_folder[1])
    assert in_zip[1].classes == ("10", "2", "café") and in_zip[1].split == "val"


def test_files_of_parts(tmp_path: Path) -> None:
    tree(tmp_path / "a", "flowers-Train-0.tar", "flowers-Train-1.tar", "flowers-test.tar")
    found = files_of_splits(tmp_path / "a", ".tar")
    assert {part: len(files) for part, files in found.items()} == {"train": 2, "test": 1}
    assert list(files_of_splits(tmp_path / "a", ".tar", "none")) == ["train"]
    tree(tmp_path / "b", "Training/0.tar", "valid_set/1.tar")
    assert list(files_of_splits(tmp_path / "b", ".tar")) == ["train", "val"]
    tree(tmp_path / "c", "train-0.tar", "training-1.tar")
    with pytest.raises(UserError, match=r"train-0\.tar, training-1\.tar in .* all name the part train"):
        files_of_splits(tmp_path / "c", ".tar")


def test_classes_of_parquet_files_may_lack_images_in_val(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paint(tmp_path / "x.png", 7)
    data = (tmp_path / "x.png").read_bytes()
    for name, labels in {"Train-0": ["cow", "ant", "bee"], "Validation-0": ["cow", "ant"]}.items():
        pq.write_table(
            pa.table({"image": [data] * len(labels), "label": labels}), tmp_path / f"{name}.parquet"
        )
    train, val = open_labelled("parquet", root=tmp_path)
    assert val is not None and train.classes == val.classes == ("ant", "bee", "cow")
    assert val.labels is not None and val.labels.tolist() == [2, 0]
    assert "no image in val (bee)" in val.set_remarks[0]  # type: ignore[attr-defined]


def test_parts_is_no_option_of_named_sets() -> None:
    with pytest.raises(UserError, match=r"data\.parts: fashion-objects .* does not take it"):
        open_images("fashion-objects", parts="none")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    train, val = pair(tree(tmp_path, *classes("Train", "Val", names=(name, "bee"))))
    assert val is not None and train.classes == val.classes == ("bee", name)


def test_a_run_of_number_folders_in_the_old_order_is_told_so(tmp_path: Path) -> None:
    images = ClassFolder(tree(tmp_path, *(f"{number}/1.jpg" for number in range(11))))
    with pytest.raises(UserError, match="older versions sorted them as text"):
        require_same_images(images, fingerprint="of the old order", count=11)


def test_an_archive_beside_the_folders_that_came_out_of_it(tmp_path: Path) -> None:
    tree(tmp_path, *classes("Train", "Test"), "download.zip")
    assert kind_of_files(tmp_path) == "folder"
    tree(tmp_path / "mixed", "1.jpg", "2.zip")
    with pytest.raises(
        UserError, match=r"holds images and \.zip files; .*--data\.name flat or --data\.name zip"
    ):
        kind_of_files(tmp_path / "mixed")
    assert kind_of_files(tree(tmp_path / "shards", "train/0.tar", "val/0.tar")) == "shards"
