"""Sets of images with masks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from siamtransfer.data.pixel_form import FILE_OPTIONS, OPTIONS, RGB, SHOWN, pixel_form
from siamtransfer.segmentation.data.mask_files import MaskFiles
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.segmentation.data.own_masks import open_own_masks
from siamtransfer.segmentation.data.published import (
    ADE20K_COUNTS,
    CITYSCAPES_COUNTS,
    COCO_STUFF_COUNTS,
    open_ade20k,
    open_cityscapes,
    open_coco_stuff,
)
from siamtransfer.segmentation.data.scenes import SceneMasks
from siamtransfer.segmentation.data.voc import (
    AUGMENTED_COUNTS,
    VOC_COUNTS,
    open_voc2012,
    open_voc2012_augmented,
)
from siamtransfer.utils.errors import UserError


class MaskRequest(NamedTuple):
    """The arguments of `open_segmentation`; `root` is never None where a set needs it."""

    name: str
    split: str
    root: str | Path
    classes: str | Path | None
    ignore: int | None


@dataclass(frozen=True)
class NamedMasks:
    """A set by name: how it is opened, and what it takes.

    splits: their names; None where the files decide. own_classes: whether it takes a class list and an
    ignored value.
    """

    open: Callable[[MaskRequest], MaskFiles]
    description: str
    splits: tuple[str, ...] | None
    own_classes: bool = False


def _own(request: MaskRequest) -> MaskFiles:
    return open_own_masks(request.root, request.split, classes=request.classes, ignore=request.ignore)


def _voc2012(request: MaskRequest) -> MaskFiles:
    return open_voc2012(request.root, request.split, classes=request.classes, ignore=request.ignore)


def _voc2012_augmented(request: MaskRequest) -> MaskFiles:
    return open_voc2012_augmented(request.root, request.split, classes=request.classes, ignore=request.ignore)


def _cityscapes(request: MaskRequest) -> MaskFiles:
    return open_cityscapes(request.root, request.split)


def _ade20k(request: MaskRequest) -> MaskFiles:
    return open_ade20k(request.root, request.split)


def _coco_stuff(request: MaskRequest) -> MaskFiles:
    return open_coco_stuff(request.root, request.split)


SCENES, OWN = "fashion-scenes", "masks"
NAMED_MASKS: dict[str, NamedMasks] = {
    "voc2012": NamedMasks(_voc2012, "Pascal VOC 2012", tuple(VOC_COUNTS), own_classes=True),
    "voc2012-aug": NamedMasks(
        _voc2012_augmented, "VOC 2012 with added masks", tuple(AUGMENTED_COUNTS), own_classes=True
    ),
    "cityscapes": NamedMasks(_cityscapes, "Cityscapes, 19 classes", tuple(CITYSCAPES_COUNTS)),
    "ade20k": NamedMasks(_ade20k, "ADE20K, 150 classes", tuple(ADE20K_COUNTS)),
    "coco-stuff": NamedMasks(_coco_stuff, "COCO-Stuff, 171 classes", tuple(COCO_STUFF_COUNTS)),
    OWN: NamedMasks(_own, "a folder of your own", None, own_classes=True),
}


def open_segmentation(
    name: str,
    *,
    root: str | Path | None = None,
    split: str = "train",
    classes: str | Path | None = None,
    ignore: int | None = None,
    size: int | None = None,
    count: int | None = None,
    channels: int | None = None,
    value_range: Sequence[float] | None = None,
    axes: str | None = None,
    orientation: str | None = None,
    background: str | None = None,
    bit_depth: int | None = None,
    max_pixels: int | None = None,
) -> MaskedImages:
    """Opens a set of images with masks by its name: `fashion-scenes`, or one of NAMED_MASKS.

    `root` is the folder of a set on disk. `classes`, a file with a class a line, and `ignore`, the value of
    ignored pixels, belong to masks of your own. `size` in pixels belongs to `fashion-scenes`. `count` scenes
    are rendered; of files it is the number that is taken, spread evenly over the set. `channels`,
    `value_range`, `axes` and `bit_depth` are of images of your own, see `PixelForm`; `orientation` and
    `background` of all files: None is shown on white for images of your own, stored and drop for published
    sets; `max_pixels` too, the most that an image may have, where None is what Pillow allows.

    Raises:
        UserError: no such name or split, an argument that the set does not take or one that it needs, or
            anything that is wrong with the set itself.
    """
    if count is not None and count < 1:
        raise UserError(f"data.count is {count}, but at least one image is needed; raise it")
    given: dict[str, object] = {"root": root, "classes": classes, "ignore": ignore, "size": size}
    given |= {"channels": channels, "value_range": value_range, "axes": axes}
    given |= {"orientation": orientation, "background": background, "bit_depth": bit_depth}
    given["max_pixels"] = max_pixels
    usual = SHOWN if name == OWN else RGB
    form = pixel_form(
        channels, bit_depth, value_range, axes, orientation, background, max_pixels, usual=usual
    )
    if name == SCENES:
        _refuse(name, given, "size")
        return SceneMasks(split, size, count)
    if name not in NAMED_MASKS:
        near = difflib.get_close_matches(name, [SCENES, *NAMED_MASKS], n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        names = ", ".join([SCENES, *NAMED_MASKS])
        raise UserError(f"data.name: there is no set of masks {name!r}{hint} (there are {names})")
    entry = NAMED_MASKS[name]
    if entry.splits and split not in entry.splits:
        raise UserError(f"data.split: {name} has no split {split!r}; choose from {', '.join(entry.splits)}")
    own = ("classes", "ignore") if entry.own_classes else ()
    _refuse(name, given, "root", *own, *(OPTIONS if name == OWN else FILE_OPTIONS))
    if root is None:
        raise UserError(f"data.root: {name} ({entry.description}) needs it; name the folder of the set")
    pairs = entry.open(MaskRequest(name, split, root, classes, ignore))
    if name == OWN:
        pairs.settle_form(form, stated=channels is not None, orientation_stated=orientation is not None)
    else:
        pairs.take_form(form, orientation_stated=orientation is not None)
    return pairs if count is None else pairs.part(count)


def _refuse(name: str, given: Mapping[str, object], *taken: str) -> None:
    """Raises UserError where an argument is given that the set does not take."""
    for key, value in given.items():
        if value is not None and key not in taken:
            raise UserError(f"data.{key}: {name} does not take it; leave it out")
