"""The images of an evaluation that cannot be read: it stops at them, or leaves them out and says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.subset import Subset
from siamtransfer.data.unreadable import BadImage, UnreadableImages
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.config import EvaluationConfig
from siamtransfer.features.cache import feature_cache
from siamtransfer.features.kept_failures import unreadable_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

CURE = "--data.unreadable skip leaves such images out and counts them"
NAMES_RECORDED = 1000  # of images that were left out; the record has the count of all


@dataclass(frozen=True)
class ReadableImages:
    """The train and test images of an evaluation without those that cannot be read.

    Attributes:
        record: what the protocol says of those that were left out; empty where none was looked for.
    """

    train: ImageSet
    test: ImageSet | None
    record: dict[str, Any]


def leave_out_unreadable(
    train: ImageSet, test: ImageSet | None, config: EvaluationConfig, runtime: Runtime, workers: int
) -> ReadableImages:
    """The images that `data.unreadable` leaves, the same on every rank.

    With `stop` these are all images, and only the sizes of files are looked at: an empty or missing file ends
    the evaluation before anything is computed, any other when it is read. With `skip` every image is read
    once, so that training and test features, labels, caches and fingerprints are of the same images from
    the start; what is found is kept in `config.cache`. Sets in memory are not read.

    Raises:
        UserError: files are empty or missing (stop); or more than `data.max_unreadable` of a set cannot be
            read, or no train image of a class can (skip).
    """
    data = config.data
    sets = [images for images in (train, test) if images is not None]
    if data.unreadable == "stop":
        _refuse_empty_files(sets, runtime)
        return ReadableImages(train, test, {})
    record: dict[str, Any] = {"rule": "skip", "limit": data.max_unreadable}
    kept = []
    for images, part in zip(sets, ("train", "test")[: len(sets)], strict=True):
        rest, record[part] = _readable_part(images, part, config, runtime, workers)
        kept.append(rest)
    return ReadableImages(kept[0], kept[1] if test is not None else None, {"unreadable": record})


def leave_out_of(
    images: ImageSet, config: EvaluationConfig, runtime: Runtime, workers: int
) -> tuple[ImageSet, dict[str, Any]]:
    """The same for one further set that is scored: its readable images, and what the protocol says of it."""
    if config.data.unreadable == "stop":
        _refuse_empty_files([images], runtime)
        return images, {}
    rest, record = _readable_part(images, "test", config, runtime, workers)
    rule = {"rule": "skip", "limit": config.data.max_unreadable}
    return rest, {"unreadable": rule | {"test": record}}


def _readable_part(
    images: ImageSet, part: str, config: EvaluationConfig, runtime: Runtime, workers: int
) -> tuple[ImageSet, dict[str, Any]]:
    """The readable images of train or test, and how many others there are, with their names."""
    in_memory = images.image_size is not None
    cache = feature_cache(config.cache)
    bad = [] if in_memory else unreadable_of(images, cache, runtime, workers=workers)
    rest = _without(images, bad, config.data.max_unreadable)
    gone = _classes_gone(images, rest)
    if gone and part == "train":
        raise _lost_class(images, gone, bad[0])
    if runtime.is_main and bad:
        say(_sentence(images, bad, gone))
    names = [_name(images, image) for image in bad[:NAMES_RECORDED]]
    return rest, {"images": len(bad), "names": names}


def _without(images: ImageSet, bad: Sequence[BadImage], limit: float) -> ImageSet:
    """The images that are not bad.

    Raises:
        UserError: these are none, or the bad ones are too many.
    """
    if len(bad) == len(images):
        raise UserError(
            f"none of the {len(images)} images of {images.name}/{images.split} can be read, {bad[0].where} "
            f"because {bad[0].why}; check that the folder really holds images"
        )
    UnreadableImages(len(images), limit).add_all(bad)
    if not bad:
        return images
    return Subset(images, np.setdiff1d(np.arange(len(images)), [image.index for image in bad]))


def _classes_gone(images: ImageSet, rest: ImageSet) -> list[str]:
    """The names of the classes that `images` has and `rest` has not."""
    before, after = (_classes_in(part.labels) for part in (images, rest))
    return [
        printable(images.classes[label]) if label < len(images.classes) else str(label)
        for label in sorted(before - after)
    ]


def _lost_class(images: ImageSet, gone: Sequence[str], first: BadImage) -> UserError:
    where = f"{images.name}/{images.split}"
    return UserError(
        f"no image of {first_few(gone)} in {where} can be read, and a class that is not learnt cannot be "
        f"scored ({first.where}: {first.why}); mend these images or take the class out of all parts"
    )


def _classes_in(labels: np.ndarray | None) -> set[int]:
    """The classes of labels int64[N], or int64[N, C] of 0 and 1."""
    if labels is None:
        return set()
    return set((np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(axis=0))).tolist())


def _sentence(images: ImageSet, bad: Sequence[BadImage], gone: Sequence[str]) -> str:
    """What is left out, and the classes `gone` with it."""
    named = first_few([f"{image.where} ({image.why})" for image in bad])
    where = f"{images.name}/{images.split}"
    whole = f"; no image of {first_few(gone)} can be read, so nothing is scored on it" if gone else ""
    return f"left out {len(bad)} of the {len(images)} images of {where}, which cannot be read: {named}{whole}"


def _name(images: ImageSet, image: BadImage) -> str:
    """What a record calls an image: its path below the folder of the set, where that is known."""
    relative = getattr(images, "relative_name", None)
    return printable(relative(image.index)) if relative else image.where


def _refuse_empty_files(sets: Sequence[ImageSet], runtime: Runtime) -> None:
    """Raises UserError, on every rank, where files of sets have no bytes, or are links to nothing."""
    with collectives.own_pace("looking at the sizes of files"):
        for images in sets if runtime.is_main else ():
            sizes = getattr(images, "file_sizes", None)
            empty = [] if sizes is None else np.flatnonzero(np.asarray(sizes) <= 0).tolist()
            if empty:
                named = first_few([images.describe(index) for index in empty])
                raise UserError(
                    f"{len(empty)} of the {len(images)} files of {images.name}/{images.split} are empty or "
                    f"missing ({named}): mend them or take them out of the set; {CURE}"
                )
