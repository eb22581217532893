"""Small images through torchvision, held in memory: CIFAR, STL-10, MNIST, Fashion-MNIST and SVHN."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

# name: (what torchvision looks for below the root; how to open (root, split, download))
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
    """One of SOURCES as an ImageSet in memory: uint8[N,H,W,3], or uint8[N,H,W] for the grey (Fashion-)MNIST.

    STL-10's splits with unlabelled images have no labels at all, not even for their labelled part.

    Raises:
        UserError: the set is not below `root`, is damaged, or could not be downloaded.
    """
    folder = Path(root).expanduser().absolute()
    inner, open_set = SOURCES[name]
    with official(name, folder, inner, download=download):
        found = open_set(folder, split, download)
    pixels, labels = np.asarray(found.data), getattr(found, "labels", None)
    if labels is None:
        labels = found.targets
    if name in CHANNELS_FIRST:
        pixels = pixels.transpose(0, 2, 3, 1)  # a view: STL-10 has 2.8 GB
    return ArrayImages(
        name,
        split,
        pixels,
        None if "unlabeled" in split else np.asarray(labels),
        getattr(found, "classes", DIGITS),
    )


@contextlib.contextmanager
def official(
    name: str, folder: Path, inner: str, *, download: bool = False, fetched: bool = True
) -> Iterator[None]:
    """Makes one sentence of whatever goes wrong while a set is looked for at `folder`/`inner`: no file, a
    wrong checksum, a broken list, no network, no space. What torchvision prints goes to stderr.

    `fetched` says whether torchvision could download the set at all.

    Raises:
        UserError: the body raised anything; a UserError of its own passes unchanged.
    """
    where = printable(folder / inner)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except Exception as error:
        if download:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"could not download {name} to {printable(folder)} ({reason}); check the network and the "
                f"free space, or put the official files into {where}"
            ) from error
        cure = ", or fetch the set with --data.download true" if fetched else ""
        raise UserError(
            f"{name} is not in {where} or is damaged; name the folder above {inner} with --data.root{cure}"
        ) from error
