"""The test sets that are scored beside the test split: opened, and their classes found among train's.

Legend: Q images of a test set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.data import ImageSet, open_images
from siamtransfer.data.class_names import match_to_train
from siamtransfer.data.containers.splits import TEST_SPLITS
from siamtransfer.data.imageset import fingerprint_of_arrays
from siamtransfer.data.openers import parts_of_folder
from siamtransfer.data.registry import NAMED
from siamtransfer.data.shifted_sets import CLASSES, NUMBERED, corruptions_in
from siamtransfer.data.shifted_sets import CORRUPTED as IMAGENET_C
from siamtransfer.distributed import collectives
from siamtransfer.evaluation.frozen_model import FrozenModel
from siamtransfer.evaluation.labelled_images import form_options, require_channels, shared_files
from siamtransfer.evaluation.named_folders import errors_of_set
from siamtransfer.evaluation.robustness.config import RobustnessConfig
from siamtransfer.evaluation.unreadable import leave_out_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

MASKED_BY_AUTHORS = ("imagenet-r", "imagenet-a")
"""Sets whose authors let a classifier of all classes choose among the set's own."""


@dataclass(frozen=True)
class TestSet:
    """A test set of classes that train has.

    Attributes:
        name: what it is called in the record.
        versions: the images, by the name of the setting; several are versions of the same images.
        labels: int64[Q], in train's numbering.
        masked: whether only the classes of the set can be predicted.
        left_out: what the protocol says of images that could not be read.
        remarks: on its classes.
    """

    __test__ = False  # pytest collects classes of this prefix

    name: str
    versions: dict[str, ImageSet]
    labels: np.ndarray
    masked: bool
    left_out: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal: of the images, or of all versions of them."""
        prints = [images.fingerprint for images in self.versions.values()]
        return prints[0] if len(prints) == 1 else fingerprint_of_arrays(text="\n".join(prints))


def open_test_sets(config: RobustnessConfig, model: FrozenModel) -> list[TestSet]:
    """The sets of `config.shifted`, the same on every rank.

    Raises:
        UserError: a set cannot be opened, or has classes that train lacks, or images of other channels.
    """
    sets = []
    for name, folder in config.shifted_folders.items():
        with collectives.own_pace(f"opening {name}"), errors_of_set("--shifted", name, folder):
            versions = _open(name, folder, config, model)
            for images in versions.values():
                _refuse_learned(images, model.train)
        sets.append(_as_test_set(name, folder, versions, config, model))
        if model.runtime.is_main:
            of = f" in {len(versions)} versions" if len(versions) > 1 else ""
            classes = len(np.unique(sets[-1].labels))
            say(f"{name}: {len(sets[-1].labels):,} images of {classes} classes{of}")
    return sets


def _open(name: str, folder: str, config: RobustnessConfig, model: FrozenModel) -> dict[str, ImageSet]:
    """The images of a set by the name of the setting."""
    if name == IMAGENET_C:
        return {
            f"{name}/{corruption}/severity={severity}": _open_split(
                IMAGENET_C, folder, f"{corruption}/{severity}", config, model
            )
            for corruption in corruptions_in(folder)
            for severity in sorted(config.severities)
        }
    if name in CLASSES:
        return {name: _open_split(name, folder, "test", config, model)}
    if name in NAMED:
        raise UserError(
            f"{name} is the name of a set with a layout of its own: give your class folders another name "
            f"(opened as published are {', '.join((*CLASSES, IMAGENET_C))})"
        )
    parts = parts_of_folder(Path(folder).expanduser().absolute())
    split = next((part for part in TEST_SPLITS if part in parts), "train")
    return {name: _open_split("folder", folder, split, config, model)}


def _open_split(kind: str, folder: str, split: str, config: RobustnessConfig, model: FrozenModel) -> ImageSet:
    """A split of a set of files, whose pixels are read as those of train."""
    options = form_options(model.train, config.data, kind)
    images = open_images(kind, root=folder, split=split, **options)
    if images.labels is None:
        raise UserError(f"{printable(folder)} has no class folders, so nothing can be scored on it")
    if doubt := getattr(images, "doubt", None):
        raise UserError(doubt)
    if model.backbone is not None:
        require_channels(model.source, model.backbone, images)
    return images


def _refuse_learned(images: ImageSet, train: ImageSet) -> None:
    """Raises UserError where images of a test set are among those that the head is fitted to."""
    if shared := shared_files(images, train):
        raise UserError(
            f"{len(shared)} of its {len(images)} images are images of train, too "
            f"({printable(first_few(shared))}), so they were learned: name a folder of others"
        )


def _as_test_set(
    name: str, folder: str, versions: dict[str, ImageSet], config: RobustnessConfig, model: FrozenModel
) -> TestSet:
    readable: dict[str, ImageSet] = {}
    labels: dict[str, np.ndarray] = {}
    remarks: list[str] = []
    left_out: dict[str, Any] = {}
    for setting, images in versions.items():
        readable[setting], left_out = leave_out_of(images, config, model.runtime, model.workers)
        labels[setting], remarks = _labels_of_train(name, folder, readable[setting], model.train)
    first = next(iter(labels))
    for setting, other in labels.items():
        if not np.array_equal(other, labels[first]):
            raise UserError(
                f"{setting} and {first} in {printable(folder)} are no versions of the same images (they have "
                f"{len(other):,} and {len(labels[first]):,}): unpack them again"
            )
    masked = config.absent_classes == "masked"
    if config.absent_classes == "published":
        masked = name in MASKED_BY_AUTHORS
    return TestSet(name, readable, labels[first], masked, left_out, remarks)


def _labels_of_train(
    name: str, folder: str, images: ImageSet, train: ImageSet
) -> tuple[np.ndarray, list[str]]:
    """The labels int64[Q] of a set in train's numbering, and remarks.

    Raises:
        UserError: the set has classes that train lacks, or counts those of ImageNet and train has others.
    """
    assert images.labels is not None
    if name in NUMBERED:
        if len(train.classes) != len(images.classes):
            raise UserError(
                f"the classes of {name} are numbers, the positions in the sorted names of ImageNet's "
                f"{len(images.classes)} classes, and {train.name} has {len(train.classes)}: rename its "
                "folders to the names of the classes and give it another name"
            )
        counted = f"the folders of {name} are numbers and mean the positions in the sorted classes of train"
        return np.asarray(images.labels), [counted]
    present = np.unique(images.labels)
    names = [images.classes[label] for label in present]
    found, remarks = match_to_train(names, train.classes, name, printable(folder))
    remarks = [*getattr(images, "set_remarks", ()), *remarks]
    numbers = np.array([found[each] for each in names], dtype=np.int64)
    return numbers[np.searchsorted(present, images.labels)], remarks
