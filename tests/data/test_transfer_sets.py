"""The sets of the transfer suites, read from their official layouts at tiny size by torchvision's classes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.transfer_layouts import WRITERS, picture, write_lines
from torchvision import datasets

from siamtransfer.data import ImageSet, UnreadableImage, open_images, open_labelled
from siamtransfer.data.registry import NAMED
from siamtransfer.data.scenes.export import SceneCounts, write_voc
from siamtransfer.data.scenes.objects import CLASSES
from siamtransfer.data.voc import ignored_of
from siamtransfer.programs.knn import main as knn
from siamtransfer.utils.errors import UserError

# name: how many images train and test have, how many classes, and the labels of both in the set's order
EXPECTED: dict[str, tuple[int, int, int, list[int], list[int]]] = {
    "food101": (9, 3, 3, [0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2]),
    "cars": (6, 3, 3, [0, 1, 2, 0, 1, 2], [0, 1, 2]),
    "aircraft": (6, 6, 3, [0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2]),
    "dtd": (6, 4, 2, [0, 0, 0, 1, 1, 1], [0, 0, 1, 1]),
    "pets": (9, 6, 3, [0, 0, 0, 2, 2, 2, 1, 1, 1], [0, 0, 2, 2, 1, 1]),
    "flowers102": (6, 6, 102, [90, 91, 92, 93, 94, 95], [96, 97, 98, 99, 100, 101]),
    "country211": (6, 4, 2, [0, 0, 1, 1, 0, 1], [0, 0, 1, 1]),
    "gtsrb": (6, 4, 43, [0, 0, 1, 1, 2, 2], [2, 0, 1, 42]),
    "rendered-sst2": (6, 4, 2, [0, 0, 1, 1, 0, 1], [0, 0, 1, 1]),
    "places365": (6, 3, 3, [0, 0, 1, 1, 2, 2], [0, 1, 2]),
    "inat18": (6, 3, 3, [0, 0, 1, 1, 2, 2], [0, 1, 2]),
    "inat21": (6, 4, 2, [0, 0, 0, 1, 1, 1], [0, 0, 1, 1]),
    "inat21-mini": (6, 4, 2, [0, 0, 0, 1, 1, 1], [0, 0, 1, 1]),
    "mnist": (5, 4, 10, [0, 1, 2, 3, 4], [0, 1, 2, 3]),
    "svhn": (5, 4, 10, [0, 1, 2, 9, 4], [0, 1, 2, 9]),
}
CAN_BE_FETCHED = {name for name in WRITERS if "download" in NAMED[name].takes}


def tree(root: Path) -> set[Path]:
    return set(root.rglob("*")) if root.exists() else set()


def labels_of(images: ImageSet) -> np.ndarray:
    assert images.labels is not None and images.labels.dtype == np.int64
    return images.labels


@pytest.mark.parametrize("name", EXPECTED)
def test_lists_and_labels(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    before = tree(tmp_path)
    train, test = open_labelled(name, root=tmp_path)
    assert test is not None
    many, few, classes, train_labels, test_labels = EXPECTED[name]
    assert (len(train), len(test), len(train.classes)) == (many, few, classes)
    assert (train.name, train.split, test.name, test.split) == (name, "train", name, "test")
    assert labels_of(train).tolist() == train_labels
    assert labels_of(test).tolist() == test_labels
    assert train.image(0).dtype == np.uint8 and train.image(0).shape[2] == 3
    assert train.fingerprint != test.fingerprint and len(test.fingerprint) == 64
    assert tree(tmp_path) == before, "opening writes nothing"


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"mnist", "svhn"}))
def test_train_and_test_share_no_image_and_lose_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    train, test = (open_images(name, root=tmp_path, split=split) for split in ("train", "test"))
    paths = [images.describe(index) for images in (train, test) for index in range(len(images))]
    assert len(set(paths)) == len(paths) == sum(EXPECTED[name][:2])
    for images in (train, test):
        own = [images.describe(index) for index in range(len(images))]
        assert own == sorted(own)
        for index in range(len(images)):  # every writer numbers its pictures, most by the file's name
            assert (images.image(index)[..., 2] == 7).all()


def test_the_label_goes_with_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["pets"](tmp_path, monkeypatch)
    train = open_images("pets", root=tmp_path)
    assert train.classes == ("Abyssinian", "American Bulldog", "Bengal")
    for index, label in enumerate(labels_of(train)):
        breed, _, number = Path(train.describe(index)).stem.rpartition("_")
        assert train.classes[label].lower().replace(" ", "_") == breed.lower()
        assert (train.image(index) == [int(number), 0, 7]).all()


def test_arrays_have_rows_before_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["svhn"](tmp_path, monkeypatch)
    image = open_images("svhn", root=tmp_path).image(3)
    assert image.shape == (32, 32, 3) and (image[0] == 99).all() and (image[1:] == 3).all()


def test_the_place_does_not_matter_but_the_lists_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("one", "two"):
        WRITERS["dtd"](tmp_path / place, monkeypatch)
    one = open_images("dtd", root=tmp_path / "one").fingerprint
    assert open_images("dtd", root=f"{tmp_path}/two/").fingerprint == one
    monkeypatch.chdir(tmp_path)
    assert open_images("dtd", root="two").fingerprint == one
    lists = tmp_path / "two/dtd/dtd/labels"
    write_lines(lists / "train1.txt", (lists / "train1.txt").read_text().split()[:3])
    assert open_images("dtd", root="two").fingerprint != one


# Sets without official parts.


@pytest.mark.parametrize(
    ("name", "counts"),
    [("caltech101", {0: (30, 3), 1: (30, 10), 2: (30, 1)}), ("eurosat", {0: (16, 4), 1: (9, 2)}),
     ("sun397", {0: (50, 50), 1: (50, 50), 2: (50, 50)})],
)  # fmt: skip
def test_the_draw(
    name: str, counts: dict[int, tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path / "one", monkeypatch)
    train, test = open_labelled(name, root=tmp_path / "one")
    assert test is not None
    assert (train.split, test.split) == ("train-drawn", "test-drawn")
    found = [Counter(labels_of(images).tolist()) for images in (train, test)]
    assert {label: (found[0][label], found[1][label]) for label in counts} == counts
    paths = [{images.describe(index) for index in range(len(images))} for images in (train, test)]
    assert not paths[0] & paths[1]
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert open_images(name, root=tmp_path / "moved").fingerprint == train.fingerprint


def test_a_files_turn_is_the_digest_of_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["eurosat"](tmp_path, monkeypatch)
    train = open_images("eurosat", root=tmp_path)
    rivers = [f"eurosat/2750/River/River_{n}.jpg" for n in range(11)]
    first = sorted(rivers, key=lambda path: hashlib.sha256(path.encode()).hexdigest())[:9]
    drawn = [train.describe(index) for index in np.flatnonzero(labels_of(train) == 1)]
    assert drawn == sorted(f"{tmp_path}/{path}" for path in first)


def test_caltechs_background_is_the_102nd_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["caltech101"](tmp_path, monkeypatch)
    assert open_images("caltech101", root=tmp_path).classes == ("BACKGROUND_Google", "Faces", "inline_skate")


def test_a_class_too_small_for_the_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["caltech101"](tmp_path, monkeypatch)
    (tmp_path / "caltech101/101_ObjectCategories/inline_skate/image_0001.jpg").unlink()
    with pytest.raises(UserError, match="class inline_skate has 30 images, too few to draw"):
        open_images("caltech101", root=tmp_path)


@pytest.mark.parametrize("place", ["", "SUN397", "Partitions", "SUN397/Partitions"])
def test_suns_official_partition(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["sun397"](tmp_path, monkeypatch)
    train = ["/z/zoo/sun_00007.jpg", "/a/abbey/sun_00001.jpg"]
    write_lines(tmp_path / place / "Training_01.txt", train)
    assert open_images("sun397", root=tmp_path).split == "train-drawn", "one list alone is no partition"
    write_lines(tmp_path / place / "Testing_01.txt", ["/a/apartment_building/outdoor/sun_00002.jpg"])
    images = open_images("sun397", root=tmp_path)
    assert (images.split, labels_of(images).tolist()) == ("train", [0, 2])
    assert [images.describe(n) for n in range(2)] == [f"{tmp_path}/SUN397{path}" for path in sorted(train)]
    assert labels_of(open_images("sun397", root=tmp_path, split="test")).tolist() == [1]
    write_lines(tmp_path / place / "Training_01.txt", [*train, "/a/abbey/sun_99999.jpg"])
    with pytest.raises(
        UserError, match=r"1 of the 3 images in .*Training_01\.txt .* sun_99999\.jpg|sun_99999"
    ):
        open_images("sun397", root=tmp_path)


# What can be wrong with a set.

DAMAGED = {
    "food101": "food-101/meta/train.json",
    "cars": "stanford_cars/devkit/cars_train_annos.mat",
    "aircraft": "fgvc-aircraft-2013b/data/images_variant_trainval.txt",
    "dtd": "dtd/dtd/labels/val1.txt",
    "pets": "oxford-iiit-pet/annotations/trainval.txt",
    "flowers102": "flowers-102/setid.mat",
    "places365": "places365_train_standard.txt",
    "inat18": "train2018.json",
    "svhn": "train_32x32.mat",
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_list(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    file = tmp_path / DAMAGED[name]
    file.write_bytes(b"\0\1 what a mess " + file.read_bytes()[:9])
    with pytest.raises(UserError, match=f"{name} is not in .* or is damaged; .*--data.root") as caught:
        open_images(name, root=tmp_path)
    assert "\n" not in str(caught.value)
    assert ("--data.download true" in str(caught.value)) == (name in CAN_BE_FETCHED)


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_set_says_where_it_is_looked_for_and_nothing_is_made(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{name} is not in {tmp_path}/nowhere/.*--data.root") as caught:
        open_images(name, root=tmp_path / "nowhere")
    assert ("--data.download true" in str(caught.value)) == (name in CAN_BE_FETCHED)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"mnist", "svhn", "country211", "rendered-sst2"}))
def test_missing_images_are_counted_and_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    images = open_images(name, root=tmp_path)
    lost = Path(images.describe(1))
    lost.unlink()
    if name in ("inat21", "inat21-mini", "gtsrb"):  # these parts list what is there
        assert len(open_images(name, root=tmp_path)) == len(images) - 1
        return
    with pytest.raises(UserError, match=f"1 of the {len(images)} images that {name} lists") as caught:
        open_images(name, root=tmp_path)
    assert str(lost) in str(caught.value)


def test_labels_beyond_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["pets"](tmp_path, monkeypatch)
    file = tmp_path / "oxford-iiit-pet/annotations/trainval.txt"
    file.write_text(file.read_text().replace("Bengal_2 3", "Bengal_2 0"))
    with pytest.raises(UserError, match="labels from -1 to 2"):
        open_images("pets", root=tmp_path)


def test_parts_with_other_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["dtd"](tmp_path, monkeypatch)
    write_lines(tmp_path / "dtd/dtd/labels/val1.txt", ["banded/banded_0004.jpg", "dotted/dotted_0005.jpg"])
    with pytest.raises(UserError, match=r"dtd is not in .* or is damaged"):
        open_images("dtd", root=tmp_path)


def test_an_unreadable_image_is_named_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["aircraft"](tmp_path, monkeypatch)
    images = open_images("aircraft", root=tmp_path)
    Path(images.describe(2)).write_bytes(b"\xff\xd8\xff no JPEG")
    with pytest.raises(UnreadableImage, match=r"0000002\.jpg"):
        images.image(2)


def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(self: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.OxfordIIITPet, "_download", no_network)
    with pytest.raises(UserError, match=r"could not download pets .*no route to host"):
        open_images("pets", root=tmp_path, download=True)
    with pytest.raises(UserError, match=r"data\.download: cars .*does not take it"):
        open_images("cars", root=tmp_path, download=True)


def test_a_download_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(self: Any) -> None:
        if not self._check_exists():
            WRITERS["pets"](tmp_path, monkeypatch)

    monkeypatch.setattr(datasets.OxfordIIITPet, "_download", unpack)
    train, test = open_labelled("pets", root=tmp_path, download=True)
    assert test is not None and (len(train), len(test)) == (9, 6)


# The metric.


def test_metrics() -> None:
    by_class = {name for name in NAMED if NAMED[name].metric == "mean_per_class"}
    assert by_class == {"aircraft", "pets", "caltech101", "flowers102"}
    assert NAMED["voc07"].metric == "mAP_11point"
    assert NAMED["cifar10"].metric == NAMED["folder"].metric == NAMED["sun397"].metric == "top1"
    with pytest.raises(UserError, match="no set 'pet'; did you mean pets"):
        open_images("pet")


# PASCAL VOC 2007.


def test_voc_from_its_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["voc07"](tmp_path, monkeypatch)
    train, test = open_labelled("voc07", root=tmp_path)
    assert test is not None
    assert train.classes == test.classes == ("bird", "cat", "dog")
    assert [Path(train.describe(n)).stem for n in range(4)] == ["000005", "000007", "000009", "000012"]
    assert labels_of(train).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0]]
    assert labels_of(test).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    ignored = [ignored_of(images) for images in (train, test)]
    assert np.argwhere(ignored[0]).tolist() == [[1, 2]] and np.argwhere(ignored[1]).tolist() == [[0, 0]]
    assert (train.image(1) == [7, 0, 7]).all()
    assert ignored_of(open_images("fashion-objects")) is None


def test_voc_lies_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["voc07"](tmp_path, monkeypatch)
    prints = {
        open_images("voc07", root=tmp_path / place).fingerprint
        for place in ("", "VOCdevkit", "VOCdevkit/VOC2007")
    }
    assert len(prints) == 1


def test_voc_from_annotations_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["voc07"](tmp_path, monkeypatch)
    listed = open_labelled("voc07", root=tmp_path)
    for file in (tmp_path / "VOCdevkit/VOC2007/ImageSets/Main").glob("*_*.txt"):
        file.unlink()
    for ours, theirs in zip(open_labelled("voc07", root=tmp_path), listed, strict=True):
        assert ours is not None and theirs is not None
        assert ours.fingerprint == theirs.fingerprint
        assert (ignored_of(ours) == ignored_of(theirs)).all() and (labels_of(ours) == labels_of(theirs)).all()


def test_voc_fingerprint_covers_what_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["voc07"](tmp_path, monkeypatch)
    before = open_images("voc07", root=tmp_path).fingerprint
    file = tmp_path / "VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt"
    file.write_text(file.read_text().replace(" 0\n", "-1\n"))
    after = open_images("voc07", root=tmp_path)
    assert after.fingerprint != before and not np.any(ignored_of(after))


def test_scenes_as_voc_can_be_classified(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007", SceneCounts(train=40, test=10, size=32))
    train, test = open_labelled("voc07", root=tmp_path)
    assert test is not None
    assert (labels_of(train).shape, labels_of(test).shape) == ((40, 10), (10, 10))
    assert train.classes == tuple(sorted(CLASSES))
    assert labels_of(train).sum(axis=1).max() > 1 and np.any(ignored_of(train))
    assert not np.any(labels_of(train).astype(bool) & ignored_of(train))


VOC_MISTAKES = {
    "no test archive": ("test.txt", None, r"test\.txt is missing: unpack VOCtest_06-Nov-2007\.tar"),
    "an image too few": ("cat_test.txt", "000001 1\n", r"cat_test\.txt is damaged"),
    "another number": ("cat_test.txt", "000001 1\n000002 2\n000003 1\n", r"cat_test\.txt is damaged"),
    "nothing listed": ("test.txt", "", "damaged|lists no images"),
    "no text": ("cat_test.txt", b"\xff\xfe\0", r"cat_test\.txt .*no text"),
}


@pytest.mark.parametrize("mistake", VOC_MISTAKES)
def test_what_can_be_wrong_with_voc(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["voc07"](tmp_path, monkeypatch)
    name, content, message = VOC_MISTAKES[mistake]
    file = tmp_path / "VOCdevkit/VOC2007/ImageSets/Main" / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        open_images("voc07", root=tmp_path, split="test")
    assert "\n" not in str(caught.value)


def test_broken_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["voc07"](tmp_path, monkeypatch)
    base = tmp_path / "VOCdevkit/VOC2007"
    for file in (base / "ImageSets/Main").glob("*_*.txt"):
        file.unlink()
    file = base / "Annotations/000002.xml"
    whole = file.read_text()
    for content, message in (
        (whole[:20], r"000002\.xml is no XML"),
        (whole.replace("dog", "cow"), "images of test .* show cow, which none of trainval"),
        (None, r"cannot read .*000002\.xml"),
    ):
        file.write_text(content) if content is not None else file.unlink()
        with pytest.raises(UserError, match=message):
            open_images("voc07", root=tmp_path, split="test")


def test_voc_without_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["voc07"](tmp_path, monkeypatch)
    (tmp_path / "VOCdevkit/VOC2007/JPEGImages/000012.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of the 4 images that voc07 lists are missing.*000012\.jpg"):
        open_images("voc07", root=tmp_path)


# The evaluators.

SMALL = ["--crop", "8", "--device", "cpu", "--data.workers", "0", "--cache", "none", "--k", "1"]


def test_knn_scores_a_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["pets"](tmp_path, monkeypatch)
    for n in range(9, 15):  # each test image is the copy of a training image of its breed
        breed = ("Abyssinian", "american_bulldog", "Bengal")[n % 3]
        picture(tmp_path / f"oxford-iiit-pet/images/{breed}_{n}.jpg", 0)
    record = knn(["pixels", "--data.name", "pets", "--data.root", str(tmp_path), *SMALL])
    assert record is not None
    assert record["protocol"]["train"] == "pets/train" and record["protocol"]["test_images"] == 6
    nearest = labels_of(open_images("pets", root=tmp_path))[0]  # number 0, the darkest
    wanted = labels_of(open_images("pets", root=tmp_path, split="test"))
    assert record["metrics"]["knn/k=1/T=0.07/top1"] == pytest.approx(100 * float((wanted == nearest).mean()))


def test_knn_scores_several_labels_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["voc07"](tmp_path, monkeypatch)
    record = knn(["pixels", "--data.name", "voc07", "--data.root", str(tmp_path), *SMALL])
    assert record is not None
    assert 0 < record["metrics"]["knn/k=1/T=0.07/mAP"] <= 100
    json.dumps(record)
