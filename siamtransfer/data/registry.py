"""The sets of images that can be asked for by name; a set of your own is `folder`, `flat` or `list`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from siamtransfer.data.imageset import ImageSet
from siamtransfer.utils.errors import UserError


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


Score = Literal["top1", "mean_per_class", "mAP_11point"]


@dataclass(frozen=True)
class NamedSet:
    """One line of the table: how a set is opened, which arguments it takes, and by which number the
    literature compares on it."""

    open: Callable[[Request], ImageSet]
    what: str
    splits: tuple[str, ...] | None  # None: the folders decide
    takes: tuple[str, ...] = ()  # of root, download, list_file, size and count
    needs: tuple[str, ...] = ()  # of root and list_file
    metric: Score = "top1"


def _objects(ask: Request) -> ImageSet:
    from siamtransfer.data.scenes.objects import FashionObjects

    return FashionObjects(ask.split)


def _scenes(ask: Request) -> ImageSet:
    from siamtransfer.data.scenes.scenes import FashionScenes

    size = {} if ask.size is None else {"size": ask.size}
    return FashionScenes(ask.split, count=ask.count, seed=ask.seed, **size)


def _torchvision(ask: Request) -> ImageSet:
    from siamtransfer.data.torchvision_sets import open_torchvision

    assert ask.root is not None
    return open_torchvision(ask.name, ask.root, ask.split, download=ask.download)


def _official(ask: Request) -> ImageSet:
    from siamtransfer.data.transfer_sets import open_official

    assert ask.root is not None
    return open_official(ask.name, ask.root, ask.split, download=ask.download)


def _drawn(ask: Request) -> ImageSet:
    from siamtransfer.data.transfer_sets import open_drawn

    assert ask.root is not None
    return open_drawn(ask.name, ask.root, ask.split, download=ask.download)


def _voc07(ask: Request) -> ImageSet:
    from siamtransfer.data.voc import VocImages

    assert ask.root is not None
    return VocImages(ask.root, ask.split, name=ask.name, download=ask.download)


def _inaturalist(ask: Request) -> ImageSet:
    from siamtransfer.data.transfer_sets import open_inaturalist

    assert ask.root is not None
    return open_inaturalist(ask.name, ask.root, ask.split)


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
IMAGENET_SPLITS = ("train", "val", "test")


def _fetched(
    opened_by: Callable[[Request], ImageSet],
    what: str,
    metric: Score = "top1",
    splits: tuple[str, ...] = TRAIN_TEST,
) -> NamedSet:
    """A set below `root` that torchvision can download."""
    return NamedSet(opened_by, what, splits, takes=("root", "download"), needs=("root",), metric=metric)


def _on_disk(
    opened_by: Callable[[Request], ImageSet], what: str, splits: tuple[str, ...] | None = TRAIN_TEST
) -> NamedSet:
    """A set below `root` that has to be there."""
    return NamedSet(opened_by, what, splits, takes=("root",), needs=("root",))


NAMED: dict[str, NamedSet] = {
    "fashion-objects": NamedSet(_objects, "28-pixel clothes, embedded", TRAIN_TEST),
    "fashion-scenes": NamedSet(_scenes, "rendered scenes", TRAIN_TEST, takes=("size", "count")),
    "cifar10": _fetched(_torchvision, "CIFAR-10"),
    "cifar100": _fetched(_torchvision, "CIFAR-100"),
    "stl10": _fetched(_torchvision, "STL-10", splits=STL_SPLITS),
    "mnist": _fetched(_torchvision, "MNIST"),
    "fashion-mnist": _fetched(_torchvision, "Fashion-MNIST"),
    "svhn": _fetched(_torchvision, "SVHN's cropped digits, without its extra part"),
    "food101": _fetched(_official, "Food-101"),
    "sun397": _fetched(_drawn, "SUN397: the first official partition, else 50 + 50 a class drawn"),
    "cars": _on_disk(_official, "Stanford Cars"),
    "aircraft": _fetched(_official, "FGVC-Aircraft by variant; train is train and val", "mean_per_class"),
    "voc07": _fetched(_voc07, "PASCAL VOC 2007, several labels; train is trainval", "mAP_11point"),
    "dtd": _fetched(_official, "Describable Textures, split 1; train is train and val"),
    "pets": _fetched(_official, "Oxford-IIIT Pets; train is trainval", "mean_per_class"),
    "caltech101": _fetched(_drawn, "Caltech-101: train is 30 a class drawn, test the rest", "mean_per_class"),
    "flowers102": _fetched(_official, "Oxford 102 Flowers; train is train and val", "mean_per_class"),
    "eurosat": _fetched(_drawn, "EuroSAT: train is 80 % of each class drawn, test the rest"),
    "country211": _fetched(_official, "Country211; train is train and valid"),
    "gtsrb": _fetched(_official, "German traffic signs"),
    "rendered-sst2": _fetched(_official, "Rendered SST2; train is train and val"),
    "places365": _fetched(_official, "Places365-Standard of 256 pixels; test is val"),
    "inat18": _on_disk(_inaturalist, "iNaturalist 2018; test is val"),
    "inat21": _on_disk(_inaturalist, "iNaturalist 2021; test is val"),
    "inat21-mini": _on_disk(_inaturalist, "iNaturalist 2021, the small train part; test is val"),
    "imagenet": NamedSet(
        _imagenet, "root/train and root/val", IMAGENET_SPLITS, ("root", "list_file"), ("root",)
    ),
    "folder": _on_disk(_folder, "a folder for each class", None),
    "flat": _on_disk(_flat, "any images, no labels", ("train",)),
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
    entry = _entry(name)
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


def metric_of(name: str) -> Score:
    """The number by which the literature compares on a set: `top1`, `mean_per_class` accuracy, or the mean
    over classes of the 11-point average precision (SimCLR's and BYOL's appendices on transfer).

    Raises:
        UserError: there is no such set.
    """
    return _entry(name).metric


def _entry(name: str) -> NamedSet:
    if name not in NAMED:
        near = difflib.get_close_matches(name, NAMED, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"data.name: there is no set {name!r}{hint} (there are {', '.join(NAMED)})")
    return NAMED[name]
