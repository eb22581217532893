"""The labelled images that an evaluator scores a backbone on: opened, checked, and described for a record."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import nn

from siamtransfer.data import ImageSet, open_labelled
from siamtransfer.data.imageset import channels_of
from siamtransfer.data.labelled import open_pair
from siamtransfer.data.pixel_form import OPTIONS, PixelForm
from siamtransfer.data.recorded_form import form_as_recorded
from siamtransfer.data.registry import NAMED
from siamtransfer.data.subset import Subset
from siamtransfer.distributed.runtime import Runtime, cpu_count
from siamtransfer.evaluation.config import EvaluationConfig, EvaluationData
from siamtransfer.utils.errors import UserError

CLASSES_RECORDED = 1000  # names of classes in a record, which has the number of all

NOT_OF_THE_SET = ("workers", "unreadable", "max_unreadable", "few")
"""Options of EvaluationData that say how a set is read, and not which it is."""


OF_THE_SET = (
    *("name", "root", "list_file", "test_split", "parts", "size", "count"),
    *("columns", "column_channels", "frames_gap"),
)
"""Options that a checkpoint records of its set, and that an evaluation takes over where it names none."""


def open_images(
    data: EvaluationData, recorded: dict[str, Any], source: str, *, labels_needed: bool = True
) -> tuple[ImageSet, ImageSet | None]:
    """The sets that the options name; without a name, those that the checkpoint records. Sets without labels
    are refused unless labels are not needed."""
    options = {
        key: value
        for key, value in asdict(data).items()
        if key not in NOT_OF_THE_SET and value is not None and value is not False  # 0 is a number
    }
    if "name" not in options:
        if not recorded.get("name"):
            raise UserError(f"{source} does not say which images to score it on: name them with --data.name")
        known = {key: recorded[key] for key in OF_THE_SET if recorded.get(key) is not None}
        options = known | form_as_recorded(recorded, recorded["name"]) | options
    opened = open_labelled if labels_needed else open_pair
    train, test = opened(options.pop("name"), **options)
    return (train if data.few is None else draw_few(train, data.few)), test


def require_columns(config: EvaluationConfig, recorded: dict[str, Any]) -> None:
    """Raises UserError where the backbone of a second column is asked for and the images are pairs of which
    no column is named: it must not be scored on the first one's by accident."""
    data = config.data
    name = data.name or recorded.get("name")
    if name not in NAMED or "columns" not in NAMED[name].takes:
        return
    if config.branch == "second" and data.column is None:
        raise UserError(
            f"--branch second is of the second column of {name}: name the column whose images it sees by "
            "--data.column"
        )
    other = config.branch_of_test
    if other != config.branch and other in ("second", "column") and data.test_column is None:
        raise UserError(
            f"--test-branch {other} is of the second column of {name}: name the column whose images it sees "
            "by --data.test-column"
        )


def draw_few(images: ImageSet, count: int) -> Subset:
    """So many of the images, drawn by the SHA-256 of their numbers, in the order of the set.

    Raises:
        UserError: there are not so many.
    """
    if count > len(images):
        raise UserError(
            f"--data.few {count} is more than the {len(images)} images of {images.name}/{images.split}"
        )
    numbers = [hashlib.sha256(str(number).encode()).digest() for number in range(len(images))]
    drawn = sorted(range(len(images)), key=numbers.__getitem__)[:count]
    return Subset(images, np.sort(np.array(drawn, dtype=np.int64)))


def form_of(*sets: ImageSet | None) -> dict[str, Any]:
    """What a record says of images that are not plain RGB of eight bits: the form that they are read in, and
    remarks on them; nothing as a rule."""
    form = getattr(sets[0], "form", PixelForm(channels_of(sets[0]))).as_dict()
    remarks = [remark for images in sets if (remark := getattr(images, "remark", None))]
    return form | ({"image_remarks": remarks} if remarks else {})


def form_options(images: ImageSet, data: EvaluationData, name: str) -> dict[str, Any]:
    """The options of `open_images` with which the further set `name` is read as `images` are, where it takes
    them: those of `data` and, of a set of files, the form of its pixels."""
    form: PixelForm | None = getattr(images, "form", None)
    options: dict[str, Any] = {key: getattr(data, key) for key in OPTIONS}
    options |= {} if form is None else form.as_options()
    options["channels"] = None if channels_of(images) == 3 else channels_of(images)
    taken = NAMED[name].takes
    return {key: value for key, value in options.items() if value is not None and key in taken}


def names_of(*sets: ImageSet | None) -> dict[str, Any]:
    """What a record says of the names in sets: the classes in the order of their labels, up to
    CLASSES_RECORDED of them, and what was remarked on classes and parts."""
    train = sets[0]
    assert train is not None
    remarks = [remark for images in sets for remark in getattr(images, "set_remarks", ())]
    return {
        "class_count": len(train.classes),
        "classes": list(train.classes[:CLASSES_RECORDED]),
        **({"set_remarks": remarks} if remarks else {}),
    }


def shared_files(images: ImageSet, known: ImageSet) -> list[str]:
    """The images of `known` that are files of `images`, too, through whatever links; none where images of
    either are in memory."""
    if images.image_size is not None or known.image_size is not None:
        return []
    resolved: dict[str, str] = {}  # folders are few, and asking the disk of every file would take long

    def place(path: str) -> str:
        folder, name = os.path.split(path)
        if folder not in resolved:
            resolved[folder] = os.path.realpath(folder)
        return f"{resolved[folder]}/{name}"

    files = {place(images.describe(index)) for index in range(len(images))}
    return [each for each in map(known.describe, range(len(known))) if place(each) in files]


def count_workers(data: EvaluationData, images: ImageSet, runtime: Runtime) -> int:
    """The processes that decode: those that the options state, or none for images in memory."""
    if data.workers is not None:
        return data.workers
    return 0 if images.image_size is not None else min(8, max(1, cpu_count() // runtime.local_world_size))


def require_channels(source: str, backbone: nn.Module, *sets: object) -> None:
    """Raises UserError where images have another number of channels than the backbone takes."""
    taken = getattr(backbone, "in_channels", 3)
    for images in sets:
        channels = channels_of(images)
        if channels != taken:
            raise UserError(
                f"{source} takes images of {taken} channel{'s' * (taken != 1)}, and those of "
                f"{getattr(images, 'name', 'the set')} have {channels}: say --data.channels {taken} if the "
                f"files have so many, or name other images, or {_network_of(source, channels)}"
            )


def _network_of(source: str, channels: int) -> str:
    if source.startswith("random:"):
        kept = [word for word in source.split(":") if not word.startswith("channels=")]
        return f"take {':'.join([*kept, f'channels={channels}'])}"
    return f"a backbone that was pretrained with --data.channels {channels}"
