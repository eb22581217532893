"""Pascal VOC 2007 as a set for classification: which of the classes an image shows.

The truth is the development kit's (Everingham et al., IJCV 2010): ImageSets/Main/CLASS_PART.txt says of every
image 1 (shows the class), -1 (does not) or 0 (shows it only in objects that are difficult to recognise, which
are left out of the score). Where those lists are missing, the same is read from the objects in Annotations/.

Legend: N images, C classes.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from torchvision import datasets

from siamtransfer.data.folders import FileImages
from siamtransfer.data.imageset import fingerprint_of_arrays
from siamtransfer.data.listing import PathTable
from siamtransfer.data.torchvision_sets import official
from siamtransfer.data.transfer_sets import require_files
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

PARTS = {"train": "trainval", "test": "test"}
PLACES = ("VOCdevkit/VOC2007", "VOC2007", ".")
SHOWN, DIFFICULT, ABSENT = 1, 0, -1
Truth = dict[str, dict[str, int]]  # image, class: one of these three


class VocImages(FileImages):
    """A part of VOC2007, or of any folder in its layout, in the order of the images' names.

    `labels` is int64[N,C], 1 where an image shows a class, else 0; `ignored` is bool[N,C], true where it
    shows it only in difficult objects, whose label is 0. train is VOC's trainval. `root` is the folder of
    VOCdevkit, VOCdevkit itself or the folder VOC2007.

    Raises:
        UserError: the set is not there, is not whole or could not be downloaded; a list is damaged.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, name: str = "voc07", download: bool = False
    ):
        part = PARTS[split]
        folder = _find(name, Path(root).expanduser().absolute(), part, download)
        names = sorted(_read(folder / f"ImageSets/Main/{part}.txt").split())
        truth, classes = _read_truth(folder, part, names)
        if not names or not classes:
            raise UserError(f"{printable(folder)} lists no images for {name}/{split}; unpack it again")
        values = np.array([[truth[image].get(c, ABSENT) for c in classes] for image in names], dtype=np.int64)
        files = PathTable(folder, [os.fsencode(f"JPEGImages/{image}.jpg") for image in names])
        require_files(name, files)
        super().__init__(name, split, files, labels=(values == SHOWN).astype(np.int64), classes=classes)
        self.ignored = values == DIFFICULT

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over relative paths, sizes, labels, what is ignored, and class names."""
        return fingerprint_of_arrays(self.ignored, text=super().fingerprint)


def ignored_of(images: Any) -> np.ndarray | None:
    """bool[N,C] of a set that says which of its labels are left out of the score, else None."""
    return getattr(images, "ignored", None)


def _find(name: str, root: Path, part: str, download: bool) -> Path:
    """The folder that plays the part of VOC2007, with the list of the images of `part`."""
    listed = Path(f"ImageSets/Main/{part}.txt")
    with official(name, root, PLACES[0], download=download):
        if download and not (root / PLACES[0] / listed).is_file():
            datasets.VOCDetection(str(root), year="2007", image_set=part, download=True)
        folder = next(root / place for place in PLACES if (root / place / "ImageSets/Main").is_dir())
    if not (folder / listed).is_file():
        archive = f"VOC{part}_06-Nov-2007.tar"
        raise UserError(
            f"{printable(folder / listed)} is missing: unpack {archive}, an archive of its own, into "
            "the same folder, or fetch it with --data.download true"
        )
    return folder


def _read_truth(folder: Path, part: str, names: list[str]) -> tuple[Truth, list[str]]:
    """What each image shows, and the names of all classes, sorted."""
    end = f"_{part}.txt"
    lists = {file.name.removesuffix(end): file for file in (folder / "ImageSets/Main").glob(f"*{end}")}
    if lists:
        return _from_lists(lists, names), sorted(lists)
    truth = train = _from_annotations(folder, names)
    if part != "trainval":
        train = _from_annotations(folder, _read(folder / "ImageSets/Main/trainval.txt").split())
    classes = _shown(train)
    if strange := sorted(set(_shown(truth)) - set(classes)):
        raise UserError(
            f"images of {part} in {printable(folder)} show {first_few(strange)}, which none of trainval "
            "does; mend their annotations"
        )
    return truth, classes


def _shown(truth: Truth) -> list[str]:
    return sorted({label for values in truth.values() for label in values})


def _from_lists(lists: dict[str, Path], names: list[str]) -> Truth:
    """What the classes' lists say of the images `names`, which are sorted."""
    truth: Truth = {image: {} for image in names}
    for label, file in lists.items():
        words = _read(file).split()
        if sorted(words[::2]) != names or not set(words[1::2]) <= {"1", "0", "-1"}:
            raise UserError(
                f"{printable(file)} is damaged: it must have 1, 0 or -1 for each image of its part; "
                "unpack it again"
            )
        for image, value in zip(words[::2], words[1::2], strict=True):
            truth[image][label] = int(value)
    return truth


def _from_annotations(folder: Path, names: list[str]) -> Truth:
    """The same from the objects of each image; a class that an image does not show has no entry."""
    truth: Truth = {}
    for image in names:
        file = folder / "Annotations" / f"{image}.xml"
        found = truth.setdefault(image, {})
        try:
            for item in ET.fromstring(_read(file)).iter("object"):
                label, difficult = item.findtext("name", ""), item.findtext("difficult", "0").strip()
                found[label] = max(found.get(label, DIFFICULT), DIFFICULT if difficult == "1" else SHOWN)
        except ET.ParseError as error:
            raise UserError(f"{printable(file)} is no XML ({error}); unpack it again") from error
    return truth


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"cannot read {printable(file)} ({reason}); unpack the set again") from error
