"""The detection data that a layered configuration names, and this project's own section SCENES in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.detection.data.dataset_split import AnnotationFormat
from siamtransfer.detection.data.datasets import DetectionData, SplitOpener, open_detection_data
from siamtransfer.detection.layered_config import LayeredConfig
from siamtransfer.utils.errors import UserError

SCENES = ("FORMAT", "TRAIN", "TEST", "SIZE", "SEED")


def open_configured_data(
    layered: LayeredConfig,
    train: str | None = None,
    test: str | None = None,
    root: Path | None = None,
    opener: SplitOpener | None = None,
) -> DetectionData:
    """The data named by `train` and `test`, or else by DATASETS.TRAIN and DATASETS.TEST; `opener` as in
    `open_detection_data`.

    Raises:
        UserError: nothing names the data, or they cannot be opened.
    """
    names = {}
    for key, argument in (("TRAIN", train), ("TEST", test)):
        if argument is None and f"DATASETS.{key}" not in layered:
            raise UserError(f"no {key.lower()} data are named: give --{key.lower()} or DATASETS.{key}")
        stated = argument or layered[f"DATASETS.{key}"].value
        names[key] = stated if isinstance(stated, str) else "+".join(stated)
    kind, counts = scenes_section(layered)
    if opener is not None and kind == "voc":
        raise UserError("SCENES.FORMAT is voc, which has boxes and masks only; leave it out for this task")
    return open_detection_data(
        names["TRAIN"], names["TEST"], root=root, kind=kind, scenes=counts, opener=opener
    )


def scenes_section(layered: LayeredConfig) -> tuple[Any, SceneCounts]:
    """The annotation format and the counts of the Fashion Scenes, from the section SCENES.

    Raises:
        UserError: a key is unknown, or a value is not of its type.
    """
    section = {
        key.removeprefix("SCENES."): stated for key, stated in layered.items() if key.startswith("SCENES.")
    }
    for key, stated in section.items():
        if key not in SCENES:
            raise UserError(f"{stated.where} has the key SCENES.{key}; the section has {', '.join(SCENES)}")
        if key != "FORMAT" and type(stated.value) is not int:
            raise UserError(f"SCENES.{key} by {stated.where} is {stated.value!r}; give a whole number")
    values = {key: stated.value for key, stated in section.items()}
    kind = values.pop("FORMAT", "coco")
    if kind not in get_args(AnnotationFormat):
        raise UserError(f"SCENES.FORMAT is {kind!r}; take one of {', '.join(get_args(AnnotationFormat))}")
    return kind, SceneCounts(**{key.lower(): value for key, value in values.items()})
