"""The sets of the transfer suites, as files: torchvision's layout and lists, our decoding.

`train` is what the literature fits on and `test` what it scores on (Kornblith et al., arXiv 1805.08974, whose
sets and metrics SimCLR's and BYOL's appendices on transfer use; CLIP, arXiv 2103.00020): a validation split
belongs to train. Sets without official splits are split at random class by class: files are sorted by the
SHA-256 of their paths, so the split is the same on every machine and needs no seed. Such a split is called
`train-drawn` or `test-drawn`.

Images are in the byte order of their paths below the root.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torchvision import datasets

from siamtransfer.data.explain_errors import explain_errors
from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import PathTable, list_images, require_files
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable


class FileList(NamedTuple):
    """The files of a set or of one split, a label each, and the names of all its classes."""

    paths: Sequence[str | Path]
    labels: Sequence[int]
    classes: Sequence[str]


@dataclass(frozen=True)
class OfficialSet:
    """A set with official splits: its folder below the root, torchvision's class, and torchvision's splits
    that make up train and test."""

    inner: str
    open: Callable[..., Any]
    train: tuple[str, ...] = ("train",)
    test: tuple[str, ...] = ("test",)
    downloadable: bool = True


OFFICIAL: dict[str, OfficialSet] = {
    "food101": OfficialSet("food-101", datasets.Food101),
    "cars": OfficialSet("stanford_cars", datasets.StanfordCars, downloadable=False),
    "aircraft": OfficialSet("fgvc-aircraft-2013b", datasets.FGVCAircraft, train=("trainval",)),
    "dtd": OfficialSet("dtd", datasets.DTD, train=("train", "val")),
    "pets": OfficialSet("oxford-iiit-pet", datasets.OxfordIIITPet, train=("trainval",)),
    "flowers102": OfficialSet("flowers-102", datasets.Flowers102, train=("train", "val")),
    "country211": OfficialSet("country211", datasets.Country211, train=("train", "valid")),
    "gtsrb": OfficialSet("gtsrb", datasets.GTSRB),
    "rendered-sst2": OfficialSet("rendered-sst2", datasets.RenderedSST2, train=("train", "val")),
    "places365": OfficialSet(
        "places365_val.txt",
        functools.partial(datasets.Places365, small=True),
        train=("train-standard",),
        test=("val",),
    ),
}


class SplitSet(NamedTuple):
    """A set without official splits: its folder, torchvision's class, and the ends of train and test among
    the n sorted images of a class."""

    inner: str
    open: Callable[..., Any]
    ends: Callable[[int], tuple[int, int]]


DRAWN: dict[str, SplitSet] = {
    "caltech101": SplitSet("caltech101/101_ObjectCategories", datasets.Caltech101, lambda n: (30, n)),
    "eurosat": SplitSet("eurosat/2750", datasets.EuroSAT, lambda n: (round(0.8 * n), n)),
    "sun397": SplitSet("SUN397", datasets.SUN397, lambda n: (50, 100)),
}

TRAFFIC_SIGNS = tuple(f"{number:05d}" for number in range(43))  # GTSRB's folders
INATURALIST = {
    ("inat21", "train"): "2021_train",
    ("inat21-mini", "train"): "2021_train_mini",
    ("inat21", "test"): "2021_valid",
    ("inat21-mini", "test"): "2021_valid",
}


def open_official(name: str, root: str | Path, split: str, *, download: bool = False) -> FileImages:
    """One split of one of OFFICIAL.

    Raises:
        UserError: the set is not below `root`, is damaged or incomplete, or could not be downloaded.
    """
    folder, source = Path(root).expanduser().absolute(), OFFICIAL[name]
    with explain_errors(name, folder, source.inner, download=download, downloadable=source.downloadable):
        splits = source.train if split == "train" else source.test
        lists = [_file_list_of(source.open(folder, part, download=download)) for part in splits]
        if any(list(files.classes) != list(lists[0].classes) for files in lists):
            raise ValueError("its parts have different classes")
    joined = FileList(
        [path for files in lists for path in files.paths],
        [label for files in lists for label in files.labels],
        lists[0].classes,
    )
    return file_images(name, split, folder, joined)


def open_drawn(name: str, root: str | Path, split: str, *, download: bool = False) -> FileImages:
    """One split of one of DRAWN. SUN397 has its official first partition instead if the files Training_01.txt
    and Testing_01.txt are in `root`, in SUN397 or in a folder Partitions of either.

    Raises:
        UserError: as in `open_official`, or a class is too small to be split.
    """
    folder, source = Path(root).expanduser().absolute(), DRAWN[name]
    with explain_errors(name, folder, source.inner, download=download):
        if not download and not (folder / source.inner).is_dir():
            raise FileNotFoundError  # before torchvision makes the folder
        dataset = source.open(folder, download=download)
        # torchvision leaves out BACKGROUND_Google, the literature's 102nd class.
        files = list_classes(folder / source.inner) if name == "caltech101" else _file_list_of(dataset)
    partition = _sun397_partition(folder, split) if name == "sun397" else None
    if partition is not None:
        return file_images(name, split, folder, _select(files, partition, folder / source.inner))
    members = split_by_hash(name, split, folder, files, source.ends)
    return file_images(name, f"{split}-drawn", folder, members)


def open_inaturalist(name: str, root: str | Path, split: str) -> FileImages:
    """iNaturalist 2021, whose splits are folders of class folders, or 2018, whose splits are train2018.json
    and val2018.json in `root`, with the images in `2018` (torchvision's name) or `train_val2018`. The test
    split is the validation split, as in the literature.

    Raises:
        UserError: the set is not below `root`, is damaged or incomplete.
    """
    folder = Path(root).expanduser().absolute()
    if name == "inat18":
        inner = f"{'train' if split == 'train' else 'val'}2018.json"
        with explain_errors(name, folder, inner, downloadable=False):
            listed = _inaturalist_2018(folder, folder / inner)
    else:
        inner = INATURALIST[name, split]
        with explain_errors(name, folder, inner, downloadable=False):
            if not (folder / inner).is_dir():
                raise FileNotFoundError
            listed = list_classes(folder / inner)
    return file_images(name, split, folder, listed)


def _file_list_of(dataset: Any) -> FileList:
    """The files of one of torchvision's sets, which has them in one of these attributes."""
    classes = getattr(dataset, "classes", TRAFFIC_SIGNS)
    for name in ("_samples", "samples", "imgs"):
        if hasattr(dataset, name):
            pairs = getattr(dataset, name)
            return FileList([path for path, _ in pairs], [label for _, label in pairs], classes)
    paths = dataset._images if hasattr(dataset, "_images") else dataset._image_files
    return FileList(paths, dataset._labels, classes)


def list_classes(folder: Path) -> FileList:
    """The images of a folder of class folders, classes sorted by name."""
    paths = [os.fsdecode(path) for path in list_images(folder).paths]
    names = [path.partition("/")[0] for path in paths]
    classes, labels = np.unique(names, return_inverse=True)
    return FileList([folder / path for path in paths], labels.tolist(), classes.tolist())


def split_by_hash(
    name: str, split: str, folder: Path, files: FileList, ends: Callable[[int], tuple[int, int]]
) -> FileList:
    """One split of `files`: of every class, sorted by the SHA-256 of the paths, the files up to the end of
    train, or from there to the end of test."""
    by_hash = sorted(
        (hashlib.sha256(os.fsencode(_below(folder, path))).digest(), label, path)
        for path, label in zip(files.paths, files.labels, strict=True)
    )
    members: list[list[str | Path]] = [[] for _ in files.classes]
    for _, label, path in by_hash:
        members[label].append(path)
    paths, labels = [], []
    for label, class_files in enumerate(members):
        train, test = ends(len(class_files))
        if not 0 < train < test <= len(class_files):
            raise UserError(
                f"{name}: the class {files.classes[label]} has {len(class_files)} images, too few to draw "
                "train and test from; unpack the whole set again"
            )
        chosen = class_files[:train] if split == "train" else class_files[train:test]
        paths += chosen
        labels += [label] * len(chosen)
    return FileList(paths, labels, files.classes)


def _sun397_partition(folder: Path, split: str) -> Path | None:
    """The list of a split of the first official partition, if both lists are there."""
    for subfolder in ("", "SUN397", "Partitions", "SUN397/Partitions"):
        files = {
            "train": folder / subfolder / "Training_01.txt",
            "test": folder / subfolder / "Testing_01.txt",
        }
        if all(file.is_file() for file in files.values()):
            return files[split]
    return None


def _select(files: FileList, partition: Path, folder: Path) -> FileList:
    """The files in a partition of SUN397, whose lines are such as `/a/abbey/sun_aaslkwtcdcxjtlvl.jpg`."""
    labels = {_below(folder, path): label for path, label in zip(files.paths, files.labels, strict=True)}
    names = [line.strip().lstrip("/") for line in partition.read_text().splitlines() if line.strip()]
    missing = [name for name in names if name not in labels]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(names)} images in {printable(partition)} are missing, the first is "
            f"{printable(folder / missing[0])}; unpack the whole set again"
        )
    return FileList([folder / name for name in names], [labels[name] for name in names], files.classes)


def _inaturalist_2018(folder: Path, annotations: Path) -> FileList:
    content = json.loads(annotations.read_bytes())
    classes = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    label_of = {number: label for label, number in enumerate(sorted(classes))}
    labels = {entry["image_id"]: label_of[entry["category_id"]] for entry in content["annotations"]}
    images = folder / "2018" if (folder / "2018").is_dir() else folder / "train_val2018"
    return FileList(
        [images / entry["file_name"].removeprefix("train_val2018/") for entry in content["images"]],
        [labels[entry["id"]] for entry in content["images"]],
        [classes[number] for number in sorted(classes)],
    )


def _below(folder: Path, path: str | Path) -> str:
    return str(path).removeprefix(f"{folder}/")


def file_images(name: str, split: str, folder: Path, listed: FileList) -> FileImages:
    """The files as an ImageSet, once they are all there and every label is a class."""
    rows = sorted(zip((os.fsencode(_below(folder, p)) for p in listed.paths), listed.labels, strict=True))
    files = PathTable(folder, [path for path, _ in rows])
    labels = np.array([label for _, label in rows], dtype=np.int64)
    if not len(files):
        raise UserError(f"{name} lists no images in {printable(folder)}; unpack the whole set again")
    if labels.min() < 0 or labels.max() >= len(listed.classes):
        raise UserError(
            f"{name} in {printable(folder)} has labels from {labels.min()} to {labels.max()} and names "
            f"{len(listed.classes)} classes; its lists are damaged, unpack them again"
        )
    require_files(name, files)
    return FileImages(name, split, files, labels=labels, classes=listed.classes)
