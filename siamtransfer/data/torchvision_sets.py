"""Sets of small images, read by torchvision and held in memory: CIFAR, STL-10, (Fashion-)MNIST and SVHN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from siamtransfer.data.explain_errors import explain_errors
from siamtransfer.data.imageset import ArrayImages
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

# name: (the folder or file of torchvision below the root; the function of (root, split, download))
TORCHVISION_SETS: dict[str, tuple[str, Callable[[Path, str, bool], Any]]] = {
    "cifar10": (
        "cifar-10-batches-py",
        lambda root, split, download: datasets.CIFAR10(root, split == "train", download=download),
    ),
    "cifar100": (
        "cifar-100-python",
        lambda root, split, download: datasets.CIFAR100(root, split == "train", download=download),
    ),
    "stl10": (
        "stl10_binary",
        lambda root, split, download: datasets.STL10(root, split, download=download),
    ),
    "mnist": (
        "MNIST/raw",
        lambda root, split, download: datasets.MNIST(root, split == "train", download=download),
    ),
    "fashion-mnist": (
        "FashionMNIST/raw",
        lambda root, split, download: datasets.FashionMNIST(root, split == "train", download=download),
    ),
    "svhn": (
        "train_32x32.mat",
        lambda root, split, download: datasets.SVHN(root, split, download=download),
    ),
}
DIGITS = tuple("0123456789")  # SVHN's classes, which torchvision does not name
CHANNELS_FIRST = ("stl10", "svhn")


def open_torchvision(
    name: str, root: str | Path, split: str = "train", *, download: bool = False
) -> ArrayImages:
    """One of TORCHVISION_SETS as an ImageSet in memory: uint8[N,H,W,3], or uint8[N,H,W] for the grey
    (Fashion-)MNIST.

    STL-10's splits with unlabelled images have no labels at all, not even for their labelled part.

    Raises:
        UserError: the set is not below `root`, is damaged, or could not be downloaded.
    """
    folder = Path(root).expanduser().absolute()
    inner, open_set = TORCHVISION_SETS[name]
    with explain_errors(name, folder, inner, download=download):
        dataset = open_set(folder, split, download)
    pixels, labels = np.asarray(dataset.data), getattr(dataset, "labels", None)
    if labels is None:
        labels = dataset.targets
    classes = getattr(dataset, "classes", DIGITS)
    labels = None if "unlabeled" in split else np.asarray(labels)
    if labels is not None:
        _check_labels(labels, len(pixels), len(classes), f"{name} in {printable(folder / inner)}")
    if name in CHANNELS_FIRST:
        pixels = pixels.transpose(0, 2, 3, 1)  # a view: STL-10 has 2.8 GB
    return ArrayImages(name, split, pixels, labels, classes)


def _check_labels(labels: np.ndarray, images: int, classes: int, where: str) -> None:
    """Raises UserError where labels and images do not fit; torchvision compares no checksum of MNIST's
    unpacked files."""
    fitting = labels.shape == (images,) and images > 0 and labels.min() >= 0 and labels.max() < classes
    if not fitting:
        raise UserError(f"{where} is damaged: its {images:,} images have other labels; get its files again")
