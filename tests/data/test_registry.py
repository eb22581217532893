"""Opening sets by name: the table, its one-sentence errors, and torchvision's sets in official formats."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from siamtransfer.data import ImageSet, open_images
from siamtransfer.data.folders import ClassFolder, FlatFolder
from siamtransfer.data.lists import ListedImages
from siamtransfer.data.registry import NAMED
from siamtransfer.utils.errors import UserError

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
DICE = np.random.default_rng(0)


def paint(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, "PNG")


def check_interface(images: ImageSet, count: int, size: int, classes: int) -> None:
    assert len(images) == count and images.image_size == size and len(images.classes) == classes
    image = images.image(count - 1)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert images.describe(3) == f"{images.name}/{images.split}[3]"
    assert len(images.fingerprint) == 64 and int(images.fingerprint, 16)
    if images.labels is not None:
        assert images.labels.dtype == np.int64 and images.labels.shape == (count,)
        assert images.labels.min() >= 0 and images.labels.max() < classes


def test_embedded_sets() -> None:
    objects = open_images("fashion-objects", split="test")
    check_interface(objects, len(objects), 28, 10)
    scenes = open_images("fashion-scenes", split="train", size=24, count=30, seed=3)
    check_interface(scenes, 30, 24, 10)
    assert scenes.fingerprint == open_images("fashion-scenes", size=24, count=30, seed=3).fingerprint
    assert scenes.fingerprint != open_images("fashion-scenes", size=24, count=30, seed=4).fingerprint
    assert open_images("fashion-scenes", count=10).image_size == 32


def test_folders_and_lists(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/4.png"):
        paint(tmp_path / name)
    tree = open_images("folder", root=tmp_path)
    assert isinstance(tree, ClassFolder) and (tree.name, tree.split, len(tree)) == ("folder", "train", 2)
    assert open_images("folder", root=str(tmp_path), split="test").split == "val"
    flat = open_images("flat", root=tmp_path)
    assert isinstance(flat, FlatFolder) and (flat.name, len(flat), flat.labels) == ("flat", 4, None)
    (tmp_path / "some.txt").write_text("train/dog/2.png 7")
    listed = open_images("list", list_file=tmp_path / "some.txt", split="few")
    assert isinstance(listed, ListedImages) and (listed.name, listed.split, len(listed)) == ("list", "few", 1)


def test_imagenet_and_its_subsets(tmp_path: Path) -> None:
    for wnid in ("n01440764", "n01443537"):
        for index in range(3):
            paint(tmp_path / f"train/{wnid}/{wnid}_{index}.JPEG")
        paint(tmp_path / f"val/{wnid}/ILSVRC2012_val_{wnid}.JPEG")
    train, val = open_images("imagenet", root=tmp_path), open_images("imagenet", root=tmp_path, split="val")
    test = open_images("imagenet", root=tmp_path, split="test")
    assert (train.name, len(train), len(val), test.split) == ("imagenet", 6, 2, "val")
    assert test.fingerprint == val.fingerprint and train.classes == val.classes
    (tmp_path / "1percent.txt").write_text("n01443537_2.JPEG\n")
    part = open_images("imagenet", root=tmp_path, list_file=tmp_path / "1percent.txt")
    assert (part.name, len(part), part.classes) == ("imagenet", 1, train.classes)
    assert part.labels is not None and part.labels.tolist() == [1]
    with pytest.raises(UserError, match="list_file picks training images"):
        open_images("imagenet", root=tmp_path, split="val", list_file=tmp_path / "1percent.txt")


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"name": "cifar-10"}, "no set 'cifar-10'; did you mean cifar10"),
    "unknown": ({"name": "xyzzy"}, "no set 'xyzzy' .there are fashion-objects, .*flat, list"),
    "no such split": (
        {"name": "cifar10", "split": "val"},
        "cifar10 has no split 'val'; choose from train, test",
    ),
    "flat has no test": ({"name": "flat", "root": ".", "split": "test"}, "flat has no split 'test'"),
    "root for embedded": (
        {"name": "fashion-objects", "root": "x"},
        r"data\.root: fashion-objects .* not take it",
    ),
    "download for a folder": ({"name": "folder", "root": "x", "download": True}, r"data\.download: folder"),
    "size for cifar": ({"name": "cifar10", "root": "x", "size": 32}, r"data\.size: cifar10"),
    "list for a folder": ({"name": "folder", "root": "x", "list_file": "y"}, r"data\.list_file: folder"),
    "no root": ({"name": "imagenet"}, r"data\.root: imagenet .* needs it; .*--data\.root"),
    "no root for a download": ({"name": "stl10", "download": True}, r"data\.root: stl10"),
    "no list": ({"name": "list", "root": "x"}, r"data\.list_file: list .* needs it"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as caught:
        open_images(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, entry in NAMED.items() if "download" in entry.takes])
def test_sets_that_are_not_there_say_how_to_get_them(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_images(name, root=tmp_path / "nowhere")
    for part in (name, str(tmp_path / "nowhere"), "--data.root", "--data.download true"):
        assert part in str(caught.value)
    assert not (tmp_path / "nowhere").exists()  # nothing is fetched unasked


def test_a_download_that_fails_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(self: object) -> None:
        print("Downloading …")
        raise OSError("<urlopen error: no route\nto host>")

    monkeypatch.setattr(datasets.CIFAR10, "download", no_network)
    with pytest.raises(UserError, match=r"could not download cifar10 .* no route to host") as caught:
        open_images("cifar10", root=tmp_path, download=True)
    assert "\n" not in str(caught.value)


def test_torchvisions_words_stay_off_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: print("Downloading …"))
    with pytest.raises(UserError):
        open_images("cifar10", root=tmp_path, download=True)
    assert capsys.readouterr().out == ""


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(
    folder: Path, kind: Any, label_key: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """The pickled batches of CIFAR with 4 images each, their checksums put in place of the official ones."""
    folder.mkdir(parents=True)
    pictures = DICE.integers(0, 256, (len(kind.train_list) + 1, 4, 3, 32, 32), dtype=np.uint8)
    listed = []
    for (name, _), batch in zip(kind.train_list + kind.test_list, pictures, strict=True):
        content = {"data": batch.reshape(4, -1), label_key: [0, 1, classes - 1, 2]}
        (folder / name).write_bytes(pickle.dumps(content))
        listed.append([name, md5(folder / name)])
    meta = folder / kind.meta["filename"]
    meta.write_bytes(pickle.dumps({kind.meta["key"]: [f"class {index}" for index in range(classes)]}))
    monkeypatch.setattr(kind, "train_list", listed[:-1])
    monkeypatch.setattr(kind, "test_list", listed[-1:])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(meta)})
    return pictures.transpose(0, 1, 3, 4, 2)  # batch, image, row, column, colour


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(name: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, key = (datasets.CIFAR10, "labels") if name == "cifar10" else (datasets.CIFAR100, "fine_labels")
    folder = tmp_path / ("cifar-10-batches-py" if name == "cifar10" else "cifar-100-python")
    pictures = write_cifar(folder, kind, key, classes, monkeypatch)
    train, test = open_images(name, root=tmp_path), open_images(name, root=tmp_path, split="test")
    check_interface(train, 4 * (len(pictures) - 1), 32, classes)
    check_interface(test, 4, 32, classes)
    for index in range(len(train)):
        assert (train.image(index) == pictures[index // 4, index % 4]).all()
    assert (test.image(2) == pictures[-1, 2]).all()
    assert test.labels is not None and test.labels.tolist() == [0, 1, classes - 1, 2]
    assert train.fingerprint != test.fingerprint
    damaged = folder / kind.train_list[0][0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(UserError, match="or is damaged"):
        open_images(name, root=tmp_path)


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    counts = {"train": 6, "test": 4, "unlabeled": 5}
    pictures = {
        part: DICE.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8) for part, count in counts.items()
    }
    for part, rows in pictures.items():
        (folder / f"{part}_X.bin").write_bytes(rows.transpose(0, 3, 2, 1).tobytes())  # columns before rows
        if part != "unlabeled":
            (folder / f"{part}_y.bin").write_bytes(np.arange(1, len(rows) + 1, dtype=np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join(f"class {index}" for index in range(10)))
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    for split in ("train", "test"):
        images = open_images("stl10", root=tmp_path, split=split)
        check_interface(images, counts[split], 96, 10)
        assert images.labels is not None and images.labels.tolist() == list(range(counts[split]))
        assert (images.image(3) == pictures[split][3]).all()
    unlabeled = open_images("stl10", root=tmp_path, split="unlabeled")
    assert unlabeled.labels is None and len(unlabeled) == 5
    assert (unlabeled.image(4) == pictures["unlabeled"][4]).all()
    both = open_images("stl10", root=tmp_path, split="train+unlabeled")
    assert both.labels is None and len(both) == 11
    assert (both.image(10) == pictures["unlabeled"][4]).all() and (
        both.image(0) == pictures["train"][0]
    ).all()


@pytest.mark.skipif(
    not DEBIAN_FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_fashion_mnist(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in DEBIAN_FASHION.glob("*.gz"):
        with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    test = open_images("fashion-mnist", root=tmp_path, split="test")
    check_interface(test, 10_000, 28, 10)
    assert test.labels is not None and np.bincount(test.labels).tolist() == [1000] * 10
    first = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes()[16 : 16 + 784], np.uint8).reshape(
        28, 28
    )
    assert (test.image(0) == first[..., None]).all()
    check_interface(open_images("fashion-mnist", root=tmp_path), 60_000, 28, 10)
    with (raw / "t10k-images-idx3-ubyte").open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(UserError, match="or is damaged"):
        open_images("fashion-mnist", root=tmp_path, split="test")
