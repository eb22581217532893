"""The sets of a suite, opened before anything is measured: are they there, and which images are they?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from siamtransfer.evaluation.config import EvaluationData
from siamtransfer.suites.cell import LABELS, Cell
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import to_json

Images = dict[str, Any]
_HOW_IT_IS_READ = ("workers", "download", "unreadable", "max_unreadable")


@dataclass(frozen=True)
class OpenedSets:
    """What the sets are, and what the machine has.

    Attributes:
        images: key of the options of a set to its fingerprints and sizes.
        missing: key to why the set cannot be opened.
        gpus: how many GPUs there are.
    """

    images: dict[str, Images]
    missing: dict[str, str]
    gpus: int


def key_of(options: Mapping[str, Any]) -> str:
    """What tells the options of one set from those of another."""
    stated = {key: value for key, value in options.items() if key not in _HOW_IT_IS_READ}
    return to_json(dict(sorted(stated.items())))


def sets_of(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """The options of the sets of images of these cells, by key."""
    return {key_of(cell.images): cell.images for cell in cells if cell.images is not None}


def open_sets(sets: dict[str, dict[str, Any]]) -> OpenedSets:
    """Opens every set; in a process of its own, for this imports torch."""
    import torch

    from siamtransfer.evaluation.labelled_images import open_images

    images: dict[str, Images] = {}
    missing: dict[str, str] = {}
    for key, options in sets.items():
        try:
            data = EvaluationData(**{key: value for key, value in options.items() if key != LABELS})
            train, test = open_images(data, {}, "the suite", labels_needed=options[LABELS])
        except UserError as error:
            missing[key] = str(error)
            continue
        images[key] = {
            "train": train.fingerprint,
            "test": None if test is None else test.fingerprint,
            "train_images": len(train),
            "test_images": len(train if test is None else test),
        }
    return OpenedSets(images, missing, torch.cuda.device_count())
