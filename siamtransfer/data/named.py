"""The sets of images that can be asked for by name; a set of your own is `folder`, `flat` or `list`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from siamtransfer.data.imageset import ImageSet
from siamtransfer.errors import UserError


@dataclass(frozen=True)
class Request:
    """What was asked for, checked against the set's entry in NAMED before `open` sees it."""

    name: str
    split: str
    root: str | Path | None
    download: bool
    list_file: str | Path | None
    size: int | None
    count: int | None
    seed: int


@dataclass(frozen=True)
class NamedSet:
    """One line of the table: how a set is opened and which arguments it takes."""

    open: Callable[[Request], ImageSet]
    what: str
    splits: tuple[str, ...] | None  # None: the folders decide
    takes: tuple[str, ...] = ()  # of root, download, list_file, size and count
    needs: tuple[str, ...] = ()  # of root and list_file


def _objects(ask: Request) -> ImageSet:
    from siamtransfer.data.objects import FashionObjects

    return FashionObjects(ask.split)


def _scenes(ask: Request) -> ImageSet:
    from siamtransfer.data.scenes import FashionScenes

    size = {} if ask.size is None else {"size": ask.size}
    return FashionScenes(ask.split, count=ask.count, seed=ask.seed, **size)


def _torchvision(ask: Request) -> ImageSet:
    from siamtransfer.data.torchvision_sets import open_torchvision

    assert ask.root is not None
    return open_torchvision(ask.name, ask.root, ask.split, download=ask.download)


def _folder(ask: Request) -> ImageSet:
    from siamtransfer.data.folders import ClassFolder

    assert ask.root is not None
    return ClassFolder(ask.root, ask.split)


def _imagenet(ask: Request) -> ImageSet:
    """The 50,000 validation images are what everyone tests on; a list picks a part of the training images."""
    from siamtransfer.data.folders import ClassFolder

    assert ask.root is not None
    if ask.list_file is None:
        return ClassFolder(ask.root, "train" if ask.split == "train" else "val", name="imagenet")
    if ask.split != "train":
        raise UserError(
            f"data.list_file picks training images of imagenet, so it cannot go with the split {ask.split}"
        )
    return _list(ask)


def _flat(ask: Request) -> ImageSet:
    from siamtransfer.data.folders import FlatFolder

    assert ask.root is not None
    return FlatFolder(ask.root)


def _list(ask: Request) -> ImageSet:
    from siamtransfer.data.lists import ListedImages

    assert ask.list_file is not None
    return ListedImages(ask.list_file, ask.root, name=ask.name, split=ask.split)


TRAIN_TEST = ("train", "test")
STL_SPLITS = ("train", "test", "unlabeled", "train+unlabeled")
FETCHED = {"takes": ("root", "download"), "needs": ("root",)}
NAMED: dict[str, NamedSet] = {
    "fashion-objects": NamedSet(_objects, "28-pixel clothes, embedded", TRAIN_TEST),
    "fashion-scenes": NamedSet(_scenes, "rendered scenes", TRAIN_TEST, takes=("size", "count")),
    "cifar10": NamedSet(_torchvision, "CIFAR-10", TRAIN_TEST, **FETCHED),
    "cifar100": NamedSet(_torchvision, "CIFAR-100", TRAIN_TEST, **FETCHED),
    "stl10": NamedSet(_torchvision, "STL-10", STL_SPLITS, **FETCHED),
    "fashion-mnist": NamedSet(_torchvision, "Fashion-MNIST", TRAIN_TEST, **FETCHED),
    "imagenet": NamedSet(
        _imagenet, "root/train and root/val", ("train", "val", "test"), ("root", "list_file"), ("root",)
    ),
    "folder": NamedSet(_folder, "a folder for each class", None, ("root",), ("root",)),
    "flat": NamedSet(_flat, "any images, no labels", ("train",), ("root",), ("root",)),
    "list": NamedSet(_list, "a text file of paths", None, ("root", "list_file"), ("list_file",)),
}

CURES = {
    "root": "name the folder of the images with --data.root",
    "list_file": "name the text file with --data.list_file",
}


def open_images(
    name: str,
    *,
    root: str | Path | None = None,
    split: str = "train",
    download: bool = False,
    list_file: str | Path | None = None,
    size: int | None = None,
    count: int | None = None,
    seed: int = 0,
) -> ImageSet:
    """Opens a set of images by its name in NAMED.

    `root` is the folder of a set on disk; `list_file` the text file of `list`, or of a part of `imagenet`.
    `size` (in pixels; None is the set's own), `count` and `seed` say how `fashion-scenes` is rendered; the
    seed means nothing to the other sets.

    Raises:
        UserError: no such name or split, an argument that the set does not take or one that it needs, or
            whatever the set itself finds wrong.
    """
    if name not in NAMED:
        near = difflib.get_close_matches(name, NAMED, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"data.name: there is no set {name!r}{hint} (there are {', '.join(NAMED)})")
    entry = NAMED[name]
    if entry.splits and split not in entry.splits:
        raise UserError(f"data.split: {name} has no split {split!r}; choose from {', '.join(entry.splits)}")
    given = {
        "root": root,
        "download": download or None,
        "list_file": list_file,
        "size": size,
        "count": count,
    }
    for key, value in given.items():
        if value is not None and key not in entry.takes:
            raise UserError(f"data.{key}: {name} ({entry.what}) does not take it; leave it out")
        if value is None and key in entry.needs:
            raise UserError(f"data.{key}: {name} ({entry.what}) needs it; {CURES[key]}")
    return entry.open(Request(name, split, root, download, list_file, size, count, seed))
