"""CIFAR-10, CIFAR-100, STL-10 and Fashion-MNIST through torchvision, as images in memory."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from siamtransfer.data.imageset import ArrayImages, printable
from siamtransfer.errors import UserError

# name: (the folder torchvision looks for below the root; how to open (root, split, download))
SOURCES: dict[str, tuple[str, Callable[[Path, str, bool], Any]]] = {
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
    "fashion-mnist": (
        "FashionMNIST/raw",
        lambda root, split, download: datasets.FashionMNIST(root, split == "train", download=download),
    ),
}


def open_torchvision(
    name: str, root: str | Path, split: str = "train", *, download: bool = False
) -> ArrayImages:
    """One of SOURCES as an ImageSet in memory: uint8[N,H,W,3], or uint8[N,H,W] for the grey Fashion-MNIST.

    STL-10's splits with unlabelled images have no labels at all, not even for their labelled part.

    Raises:
        UserError: the set is not below `root`, is damaged, or could not be downloaded.
    """
    folder = Path(root).expanduser().absolute()
    inner, open_set = SOURCES[name]
    where = printable(folder / inner)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints, and stdout is for results
            found = open_set(folder, split, download)
    except Exception as error:  # whatever torchvision meets: no file, a wrong checksum, no network, no space
        if download:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"could not download {name} to {printable(folder)} ({reason}); check the network and the "
                f"free space, or put the official files into {where}"
            ) from error
        raise UserError(
            f"{name} is not in {where} or is damaged; name the folder above {inner} with --data.root, "
            "or fetch the set with --data.download true"
        ) from error
    pixels, labels = np.asarray(found.data), getattr(found, "labels", None)
    if labels is None:
        labels = found.targets
    if name == "stl10":
        pixels = pixels.transpose(0, 2, 3, 1)  # a view: the set has 2.8 GB
    return ArrayImages(
        name, split, pixels, None if "unlabeled" in split else np.asarray(labels), found.classes
    )
