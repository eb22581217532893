"""A tree in ImageNet's layout: as many names, hard links to a few hundred JPEG files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from benchmarks.data_path import write_photographs
from siamtransfer.utils.errors import UserError

MOST_LINKS = 60_000  # ext4 allows 65,000 names a file


def build_tree(root: Path, *, train: int, val: int, classes: int, photographs: int = 300) -> None:
    """Writes `root`/train and `root`/val, unless a tree of the same counts is there already.

    Names are those of ImageNet: train/n00000007/n00000007_12.JPEG and
    val/n00000007/ILSVRC2012_val_00000012.JPEG. The classes are of equal size, but for the remainder.

    Raises:
        UserError: `root` holds something else, or the disk refuses the links.
    """
    stamp, counts = root / "counts.txt", f"{train} {val} {classes} {photographs}"
    if stamp.is_file() and stamp.read_text() == counts:
        return
    if root.exists() and any(root.iterdir()) and not (root / "photographs").is_dir():
        raise UserError(f"{root} is not empty and is no rehearsal tree: choose another --folder")
    if train + val > photographs * MOST_LINKS:
        raise UserError(f"{train + val} names need more than {photographs} photographs: raise --photographs")
    shutil.rmtree(root, ignore_errors=True)
    (root / "photographs").mkdir(parents=True)
    sources = write_photographs(root / "photographs", photographs)
    try:
        for split, count in (("train", train), ("val", val)):
            _link(root / split, split, count, classes, sources)
    except OSError as error:
        raise UserError(
            f"{root}: {error}: choose a folder on a disk with hard links and free inodes"
        ) from error
    stamp.write_text(counts)


def _link(folder: Path, split: str, count: int, classes: int, sources: list[Path]) -> None:
    order = np.random.default_rng(count).integers(len(sources), size=count)
    number = 0
    for index in range(classes):
        name = f"n{index:08}"
        (folder / name).mkdir(parents=True)
        for _ in range(count * index // classes, count * (index + 1) // classes):
            file = f"{name}_{number}.JPEG" if split == "train" else f"ILSVRC2012_val_{number:08}.JPEG"
            os.link(sources[order[number]], folder / name / file)
            number += 1


def write_list(root: Path, count: int, path: Path) -> None:
    """Writes `path`, the names of `count` training images spread evenly over the classes.

    Raises:
        UserError: a class has fewer images.
    """
    folders = sorted((root / "train").iterdir())
    each = count // len(folders)
    lines = []
    for folder in folders:
        files = sorted(folder.iterdir())[:each]
        if len(files) < each:
            raise UserError(f"{folder} has {len(files)} images and {each} are asked for: lower --evaluated")
        lines += [file.name for file in files]
    path.write_text("\n".join(lines) + "\n")
