"""Train and test data with semantic masks, opened by name or by path and checked before any training.

What names a split:
  fashion-scenes             the embedded scenes; the section SCENES has number and size
  voc2012-aug:train …        the name of a set of siamtransfer.segmentation and a split; --root is its folder
  FOLDER:SPLIT               images and masks of your own; MASKS.CLASSES is the file of the class list,
                             MASKS.IGNORE the ignored value, MASKS.ORIENTATION shown or stored
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from siamtransfer.detection.data.configured import scenes_section
from siamtransfer.detection.layered_config import LayeredConfig
from siamtransfer.detection.lr_search import SEED
from siamtransfer.segmentation.chosen_masks import ChosenMasks
from siamtransfer.segmentation.data.check import check_masks
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.segmentation.data.registry import NAMED_MASKS, open_segmentation
from siamtransfer.segmentation.data.registry import SCENES as SCENES_NAME
from siamtransfer.segmentation.data.scenes import SceneMasks
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few

KEYS = ("CLASSES", "IGNORE", "ORIENTATION")


@dataclass(frozen=True, eq=False)
class SemanticData:
    """One or several sets to train on and one to test on, with the same classes; remarks: a sentence each."""

    train: tuple[MaskedImages, ...]
    test: MaskedImages
    remarks: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by their number."""
        return self.test.classes

    @property
    def train_fingerprint(self) -> str:
        """Of the sets to train on."""
        return "+".join(images.fingerprint for images in self.train)

    def hold_out(self, fraction: float) -> SemanticData:
        """The training images split at random, always alike, into fewer of them and test images.

        Raises:
            UserError: a set has too few images to leave some on both sides.
        """
        if len(self.train) > 1:
            raise UserError("the search holds out images of one training set; name one in DATASETS.TRAIN")
        images = self.train[0]
        order = list(range(len(images)))
        random.Random(SEED).shuffle(order)
        count = round(fraction * len(order))
        if not 0 < count < len(order):
            raise UserError(
                f"{set_name(images)} has {len(order)} images, of which {fraction:g} cannot be held out; "
                "choose another --held-out"
            )
        name = f"{images.name} without {fraction:g} held out"
        kept = ChosenMasks(images, sorted(order[count:]), name)
        held = ChosenMasks(images, sorted(order[:count]), f"{fraction:g} of {images.name}, held out")
        return replace(self, train=(kept,), test=held, remarks=())

    def describe(self) -> dict[str, Any]:
        """For a record's protocol: names, counts, classes, remarks."""
        return {
            "train": [_describe(images) for images in self.train],
            "test": _describe(self.test),
            "classes": len(self.classes),
            "remarks": list(self.remarks),
        }

    def __str__(self) -> str:
        roles = [*(("train", images) for images in self.train), ("test", self.test)]
        lines = [f"{role:6} {set_name(images)}: {len(images):,} images" for role, images in roles]
        return "\n".join([*lines, f"{len(self.classes)} classes", *self.remarks])


def open_semantic_data(
    layered: LayeredConfig, train: str | None, test: str | None, root: Path | None
) -> SemanticData:
    """The data named by `train` and `test`, or else by DATASETS.TRAIN and DATASETS.TEST; every mask is read.

    Raises:
        UserError: nothing names the data, they cannot be opened, a mask is wrong, or the classes differ.
    """
    keys = _masks_section(layered)
    names = {}
    for key, argument in (("TRAIN", train), ("TEST", test)):
        if argument is None and f"DATASETS.{key}" not in layered:
            raise UserError(f"no {key.lower()} data are named: give --{key.lower()} or DATASETS.{key}")
        stated = argument or layered[f"DATASETS.{key}"].value
        names[key] = stated.split("+") if isinstance(stated, str) else list(stated)
    if len(names["TEST"]) != 1:
        raise UserError("name one set to test on in DATASETS.TEST")
    opened = [_open(name, "train", layered, keys, root) for name in names["TRAIN"]]
    tested = _open(names["TEST"][0], "test", layered, keys, root)
    for images in (*opened[1:], tested):
        if (images.classes, images.ignore) != (opened[0].classes, opened[0].ignore):
            raise UserError(
                f"{set_name(images)} has the classes {first_few(list(images.classes))} and "
                f"{set_name(opened[0])} has {first_few(list(opened[0].classes))}; "
                "give sets with the same classes"
            )
    remarks = []
    for images in (*opened, tested):
        report = check_masks(images)
        remarks += [remark for remark in (*images.remarks, *report.remarks) if remark not in remarks]
    files = {path for images in opened for path in _paths(images)}
    if both := sum(path in files for path in _paths(tested)):
        remarks.append(f"{both} of the {len(tested)} test images are training images too")
    return SemanticData(tuple(opened), tested, tuple(remarks))


def set_name(images: MaskedImages) -> str:
    """A set for messages, such as voc2012-aug/train."""
    return f"{images.name}/{images.split}"


def _open(
    name: str, role: str, layered: LayeredConfig, keys: dict[str, Any], root: Path | None
) -> MaskedImages:
    if name == SCENES_NAME:
        _, counts = scenes_section(layered)
        return SceneMasks(role, counts.size, getattr(counts, role), counts.seed)
    first, colon, split = name.rpartition(":")
    if not colon:
        raise UserError(
            f"{name!r} names no data with masks; take {SCENES_NAME}, NAME:SPLIT with one of "
            f"{', '.join(NAMED_MASKS)}, or FOLDER:SPLIT for images and masks of your own"
        )
    if first in NAMED_MASKS:
        if root is None:
            raise UserError(f"{name} needs the folder that holds {first}: name it by --root")
        own = keys if NAMED_MASKS[first].own_classes else {}
        return open_segmentation(first, root=root, split=split, **own)
    return open_segmentation("masks", root=first, split=split, **keys)


def _masks_section(layered: LayeredConfig) -> dict[str, Any]:
    """`classes`, `ignore` and `orientation` of open_segmentation, from the section MASKS."""
    values: dict[str, Any] = {}
    for key, stated in layered.items():
        if not key.startswith("MASKS."):
            continue
        name = key.removeprefix("MASKS.")
        if name not in KEYS:
            raise UserError(f"{stated.where} has the key {key}; the section has {', '.join(KEYS)}")
        kinds = {"CLASSES": "the path of a file", "IGNORE": "a whole number"}
        if not isinstance(stated.value, int if name == "IGNORE" else str):
            kind = kinds.get(name, "shown or stored")
            raise UserError(f"{key} by {stated.where} is {stated.value!r}; give {kind}")
        values[name.lower()] = stated.value
    return values


def _paths(images: MaskedImages) -> list[str]:
    return [path for index in range(len(images)) if (path := images.path(index)) is not None]


def _describe(images: MaskedImages) -> dict[str, Any]:
    return {"name": set_name(images), "images": len(images), "fingerprint": images.fingerprint}
