"""The images that are looked at, and their size in front of the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_maps import fixed_size, patch_side
from siamtransfer.data.from_objects import from_images
from siamtransfer.data.listing import list_images
from siamtransfer.data.registry import NAMED, open_images
from siamtransfer.evaluation.attention.config import AttentionConfig, ShownData
from siamtransfer.evaluation.dense.input_size import (
    SCORED_SPLITS,
    InputSize,
    ShownImages,
    choose_input_size,
    spread,
)
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.segmentation.data.registry import NAMED_MASKS, SCENES, open_segmentation
from siamtransfer.segmentation.data.scenes import SIZE as SCENE_SIZE
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

DINO_SIZE = 480
"""Side of the images in DINO's visualize_attention.py."""


@dataclass(frozen=True)
class Subjects:
    """The images, and the same set with masks where it has them.

    Attributes:
        name: of the set, with its split.
        fingerprint: of the set.
    """

    images: ShownImages
    masks: MaskedImages | None
    name: str
    fingerprint: str

    def spread(self, count: int) -> list[int]:
        """The indices of up to `count` images, spread evenly over the set."""
        return spread(len(self.images), count)


def open_subjects(config: AttentionConfig) -> Subjects:
    """Opens the images that the options name.

    Raises:
        UserError: there is no such file, folder or set, or a folder without images.
    """
    if config.images:
        paths = _files(config.images)
        files = from_images([paths[index] for index in spread(len(paths), config.pictures)])
        return Subjects(files, None, f"{len(files)} of {len(paths)} files", files.fingerprint)
    data = config.data
    assert data.name is not None
    if data.name == SCENES or data.name in NAMED_MASKS:
        masks = open_segmentation(
            data.name,
            root=data.root,
            split=data.split or _default_split(data.name, masks=True),
            classes=data.classes,
            ignore=data.ignore,
            size=data.size,
            count=data.count,
            orientation=data.orientation,
            background=data.background,
            max_pixels=data.max_pixels,
        )
        return Subjects(masks, masks, f"{masks.name}/{masks.split}", masks.fingerprint)
    if data.name not in NAMED:
        names = ", ".join([SCENES, *NAMED_MASKS, *(name for name in NAMED if name != SCENES)])
        raise UserError(f"data.name: there is no set {data.name!r} (there are {names})")
    return _without_masks(data)


def _without_masks(data: ShownData) -> Subjects:
    for key in ("classes", "ignore", "count"):
        if getattr(data, key) is not None:
            raise UserError(f"data.{key}: {data.name} has no masks and does not take it; leave it out")
    assert data.name is not None
    images = open_images(
        data.name,
        root=data.root,
        split=data.split or _default_split(data.name),
        size=data.size,
        orientation=data.orientation,
        background=data.background,
        max_pixels=data.max_pixels,
    )
    return Subjects(images, None, f"{images.name}/{images.split}", images.fingerprint)


def _default_split(name: str, *, masks: bool = False) -> str:
    """val or test where the set names one; masks of your own are expected to have val."""
    if masks:
        splits = ("train", "test") if name == SCENES else NAMED_MASKS[name].splits or SCORED_SPLITS
    else:
        splits = NAMED[name].splits or ()
    return next((split for split in SCORED_SPLITS if split in splits), "train")


def _files(names: list[str]) -> list[str]:
    """The files among `names`, and the images below the folders among them."""
    files: list[str] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            listing = list_images(path)
            if not listing.paths:
                raise UserError(f"there are no images below {printable(path)}; name a folder that has some")
            files += [str(path / inner.decode(errors="surrogateescape")) for inner in listing.paths]
        elif path.exists():
            files.append(str(path))
        else:
            raise UserError(f"there is no image {printable(path)}")
    return files


def input_size(backbone: Backbone, config: AttentionConfig, subjects: Subjects) -> InputSize:
    """The size that the options ask for, rounded to a multiple of the patch.

    Raises:
        UserError: the network takes images of another size only.
    """
    scenes = subjects.name.partition("/")[0] == SCENES
    own = (config.data.size or SCENE_SIZE) if scenes else DINO_SIZE
    return choose_input_size(config, patch_side(backbone) or 1, fixed_size(backbone), backbone.name, own)
