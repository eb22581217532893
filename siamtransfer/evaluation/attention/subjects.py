"""The images that are looked at, and their size in front of the network.

Legend: H and W pixels of an image, h and w of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_maps import fixed_size, patch_side
from siamtransfer.data.from_objects import from_images
from siamtransfer.data.listing import list_images
from siamtransfer.data.registry import NAMED, open_images
from siamtransfer.evaluation.attention.config import AttentionConfig, ShownData
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.segmentation.data.registry import NAMED_MASKS, SCENES, open_segmentation
from siamtransfer.segmentation.data.scenes import SIZE as SCENE_SIZE
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

DINO_SIZE = 480
"""Side of the images in DINO's visualize_attention.py."""
SCORED_SPLITS = ("val", "test")


class ShownImages(Protocol):
    """What pictures need of a set."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray: ...

    def describe(self, index: int) -> str: ...


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


def spread(available: int, count: int) -> list[int]:
    """Up to `count` of the numbers below `available`, at equal distances."""
    return np.linspace(0, available - 1, min(count, available)).round().astype(int).tolist()


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
        data.name, root=data.root, split=data.split or _default_split(data.name), size=data.size
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


@dataclass(frozen=True)
class InputSize:
    """The size in pixels at which the network sees an image.

    Attributes:
        side: of the square, or of the shorter side; a multiple of `multiple` in the square.
        square: whether every image becomes a square.
        multiple: both sides are multiples of this.
    """

    side: int
    square: bool
    multiple: int

    def of(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the input for an image of these sides."""
        if self.square:
            return self.side, self.side
        scale = self.side / min(height, width)
        return self._round(height * scale), self._round(width * scale)

    def _round(self, length: float) -> int:
        return max(1, round(length / self.multiple)) * self.multiple


def input_size(backbone: Backbone, config: AttentionConfig, subjects: Subjects) -> InputSize:
    """The size that the options ask for, rounded to a multiple of the patch.

    Raises:
        UserError: the network takes images of another size only.
    """
    multiple = patch_side(backbone) or 1
    only = fixed_size(backbone)
    square = config.resize == "square"
    if only is not None:
        if not square or config.size not in (None, only[0]) or only[0] != only[1]:
            raise UserError(
                f"{backbone.name} takes images of {only[0]} x {only[1]} pixels only: leave --size and "
                "--resize out"
            )
        return InputSize(only[0], True, multiple)
    scenes = subjects.name.partition("/")[0] == SCENES
    side = config.size or ((config.data.size or SCENE_SIZE) if scenes else DINO_SIZE)
    if square:
        side = max(1, round(side / multiple)) * multiple
    return InputSize(side, square, multiple)


def to_input(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """uint8[3, h, w] of an image uint8[H, W, 3], resized with antialiased bilinear interpolation."""
    pixels = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)
    if tuple(pixels.shape[1:]) == size:
        return pixels.contiguous()
    resized: Tensor = functional.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)
    return resized[0].contiguous()


def batches(
    images: ShownImages, indices: list[int], size: InputSize, batch: int
) -> Iterator[tuple[list[int], list[tuple[int, int]], Tensor]]:
    """(indices, sizes (H, W) of the images, inputs uint8[b, 3, h, w]) of up to `batch` images at a time, in
    their order; inputs of one batch have one size.

    Raises:
        UnreadableImage: an image cannot be read.
    """
    waiting: list[tuple[int, tuple[int, int], Tensor]] = []
    for index in indices:
        image = images.image(index)
        height, width = image.shape[:2]
        pixels = to_input(image, size.of(height, width))
        if waiting and (len(waiting) == batch or waiting[0][2].shape != pixels.shape):
            yield _stack(waiting)
            waiting = []
        waiting.append((index, (height, width), pixels))
    if waiting:
        yield _stack(waiting)


def _stack(
    waiting: list[tuple[int, tuple[int, int], Tensor]],
) -> tuple[list[int], list[tuple[int, int]], Tensor]:
    indices, sizes, pixels = zip(*waiting, strict=True)
    return list(indices), list(sizes), torch.stack(pixels)
