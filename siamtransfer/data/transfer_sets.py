"""The sets of the transfer suites, as files: torchvision's layout and lists, our decoding.

`train` is what the literature fits on and `test` what it scores on (Kornblith et al., arXiv 1805.08974, whose
sets and metrics SimCLR's and BYOL's appendices on transfer take over; CLIP, arXiv 2103.00020): where a set
has a validation part, it belongs to train. Sets without official parts are drawn class by class: a file's
turn is the SHA-256 of its path, so the draw is the same on every machine and needs no seed. A drawn part is
called `train-drawn` or `test-drawn`.

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

from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import MISSING, PathTable, list_images
from siamtransfer.data.torchvision_sets import official
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable


class Listed(NamedTuple):
    """The files of a set or of a part of it, a label each, and the names of all its classes."""

    paths: Sequence[str | Path]
    labels: Sequence[int]
    classes: Sequence[str]


@dataclass(frozen=True)
class Official:
    """A set with official parts: where it lies below the root, torchvision's class, and which of its splits
    make up train and test."""

    inner: str
    open: Callable[..., Any]
    train: tuple[str, ...] = ("train",)
    test: tuple[str, ...] = ("test",)
    fetched: bool = True


OFFICIAL: dict[str, Official] = {
    "food101": Official("food-101", datasets.Food101),
    "cars": Official("stanford_cars", datasets.StanfordCars, fetched=False),
    "aircraft": Official("fgvc-aircraft-2013b", datasets.FGVCAircraft, train=("trainval",)),
    "dtd": Official("dtd", datasets.DTD, train=("train", "val")),
    "pets": Official("oxford-iiit-pet", datasets.OxfordIIITPet, train=("trainval",)),
    "flowers102": Official("flowers-102", datasets.Flowers102, train=("train", "val")),
    "country211": Official("country211", datasets.Country211, train=("train", "valid")),
    "gtsrb": Official("gtsrb", datasets.GTSRB),
    "rendered-sst2": Official("rendered-sst2", datasets.RenderedSST2, train=("train", "val")),
    "places365": Official(
        "places365_val.txt",
        functools.partial(datasets.Places365, small=True),
        train=("train-standard",),
        test=("val",),
    ),
}


class Draw(NamedTuple):
    """A set without official parts: where it lies, torchvision's class, and where train and test end among
    the n images of a class that are in turn."""

    inner: str
    open: Callable[..., Any]
    ends: Callable[[int], tuple[int, int]]


DRAWN: dict[str, Draw] = {
    "caltech101": Draw("caltech101/101_ObjectCategories", datasets.Caltech101, lambda n: (30, n)),
    "eurosat": Draw("eurosat/2750", datasets.EuroSAT, lambda n: (round(0.8 * n), n)),
    "sun397": Draw("SUN397", datasets.SUN397, lambda n: (50, 100)),
}

TRAFFIC_SIGNS = tuple(f"{number:05d}" for number in range(43))  # GTSRB's folders
INATURALIST = {
    ("inat21", "train"): "2021_train",
    ("inat21-mini", "train"): "2021_train_mini",
    ("inat21", "test"): "2021_valid",
    ("inat21-mini", "test"): "2021_valid",
}


def open_official(name: str, root: str | Path, split: str, *, download: bool = False) -> FileImages:
    """A part of one of OFFICIAL.

    Raises:
        UserError: the set is not below `root`, is damaged or not whole, or could not be downloaded.
    """
    folder, source = Path(root).expanduser().absolute(), OFFICIAL[name]
    with official(name, folder, source.inner, download=download, fetched=source.fetched):
        splits = source.train if split == "train" else source.test
        parts = [_listed(source.open(folder, part, download=download)) for part in splits]
        if any(list(part.classes) != list(parts[0].classes) for part in parts):
            raise ValueError("its parts have different classes")
    together = Listed(
        [path for part in parts for path in part.paths],
        [label for part in parts for label in part.labels],
        parts[0].classes,
    )
    return _file_images(name, split, folder, together)


def open_drawn(name: str, root: str | Path, split: str, *, download: bool = False) -> FileImages:
    """A part of one of DRAWN. SUN397's official first partition is taken instead of a draw where its files
    Training_01.txt and Testing_01.txt lie in `root`, in SUN397 or in a folder Partitions in either.

    Raises:
        UserError: as in `open_official`, or a class is too small for the draw.
    """
    folder, source = Path(root).expanduser().absolute(), DRAWN[name]
    with official(name, folder, source.inner, download=download):
        if not download and not (folder / source.inner).is_dir():
            raise FileNotFoundError  # before torchvision makes the folder
        found = source.open(folder, download=download)
        # torchvision leaves out BACKGROUND_Google, the literature's 102nd class.
        whole = _tree(folder / source.inner) if name == "caltech101" else _listed(found)
    partition = _sun397_partition(folder, split) if name == "sun397" else None
    if partition is not None:
        return _file_images(name, split, folder, _named_by(partition, folder / source.inner, whole))
    return _file_images(name, f"{split}-drawn", folder, _drawn(name, split, folder, whole, source.ends))


def open_inaturalist(name: str, root: str | Path, split: str) -> FileImages:
    """iNaturalist 2021, whose parts are folders of class folders, or 2018, whose parts are train2018.json and
    val2018.json in `root`, with the images in `2018` (torchvision's name) or `train_val2018`. The validation
    part is what everyone tests on.

    Raises:
        UserError: the set is not below `root`, is damaged or not whole.
    """
    folder = Path(root).expanduser().absolute()
    if name == "inat18":
        inner = f"{'train' if split == 'train' else 'val'}2018.json"
        with official(name, folder, inner, fetched=False):
            listed = _inaturalist_2018(folder, folder / inner)
    else:
        inner = INATURALIST[name, split]
        with official(name, folder, inner, fetched=False):
            if not (folder / inner).is_dir():
                raise FileNotFoundError
            listed = _tree(folder / inner)
    return _file_images(name, split, folder, listed)


def _listed(found: Any) -> Listed:
    """What one of torchvision's sets lists; each keeps it under one of these names."""
    classes = getattr(found, "classes", TRAFFIC_SIGNS)
    for name in ("_samples", "samples", "imgs"):
        if hasattr(found, name):
            pairs = getattr(found, name)
            return Listed([path for path, _ in pairs], [label for _, label in pairs], classes)
    files = found._images if hasattr(found, "_images") else found._image_files
    return Listed(files, found._labels, classes)


def _tree(folder: Path) -> Listed:
    """The images of a folder of class folders, classes sorted by name."""
    paths = [os.fsdecode(path) for path in list_images(folder).paths]
    names = [path.partition("/")[0] for path in paths]
    classes, labels = np.unique(names, return_inverse=True)
    return Listed([folder / path for path in paths], labels.tolist(), classes.tolist())


def _drawn(
    name: str, split: str, folder: Path, whole: Listed, ends: Callable[[int], tuple[int, int]]
) -> Listed:
    turns = sorted(
        (hashlib.sha256(os.fsencode(_below(folder, path))).digest(), label, path)
        for path, label in zip(whole.paths, whole.labels, strict=True)
    )
    members: list[list[str | Path]] = [[] for _ in whole.classes]
    for _, label, path in turns:
        members[label].append(path)
    paths, labels = [], []
    for label, files in enumerate(members):
        train, test = ends(len(files))
        if not 0 < train < test <= len(files):
            raise UserError(
                f"{name}: the class {whole.classes[label]} has {len(files)} images, too few to draw train "
                "and test from; unpack the whole set again"
            )
        chosen = files[:train] if split == "train" else files[train:test]
        paths += chosen
        labels += [label] * len(chosen)
    return Listed(paths, labels, whole.classes)


def _sun397_partition(folder: Path, split: str) -> Path | None:
    """The list of a part of the first official partition, if both lists are there."""
    for place in ("", "SUN397", "Partitions", "SUN397/Partitions"):
        files = {"train": folder / place / "Training_01.txt", "test": folder / place / "Testing_01.txt"}
        if all(file.is_file() for file in files.values()):
            return files[split]
    return None


def _named_by(partition: Path, folder: Path, whole: Listed) -> Listed:
    """The images that a list of SUN397 names, as `/a/abbey/sun_aaslkwtcdcxjtlvl.jpg`."""
    labels = {_below(folder, path): label for path, label in zip(whole.paths, whole.labels, strict=True)}
    names = [line.strip().lstrip("/") for line in partition.read_text().splitlines() if line.strip()]
    missing = [name for name in names if name not in labels]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(names)} images in {printable(partition)} are missing, the first is "
            f"{printable(folder / missing[0])}; unpack the whole set again"
        )
    return Listed([folder / name for name in names], [labels[name] for name in names], whole.classes)


def _inaturalist_2018(folder: Path, annotations: Path) -> Listed:
    content = json.loads(annotations.read_bytes())
    classes = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    places = {number: place for place, number in enumerate(sorted(classes))}
    labels = {entry["image_id"]: places[entry["category_id"]] for entry in content["annotations"]}
    images = folder / "2018" if (folder / "2018").is_dir() else folder / "train_val2018"
    return Listed(
        [images / entry["file_name"].removeprefix("train_val2018/") for entry in content["images"]],
        [labels[entry["id"]] for entry in content["images"]],
        [classes[number] for number in sorted(classes)],
    )


def _below(folder: Path, path: str | Path) -> str:
    return str(path).removeprefix(f"{folder}/")


def _file_images(name: str, split: str, folder: Path, listed: Listed) -> FileImages:
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


def require_files(name: str, files: PathTable) -> None:
    """Raises UserError when files that a set lists are not there; names the first."""
    missing = np.flatnonzero(files.sizes() == MISSING)
    if len(missing):
        raise UserError(
            f"{len(missing)} of the {len(files)} images that {name} lists are missing, the first is "
            f"{printable(files[int(missing[0])])}; unpack the whole set again"
        )
