"""Maps of features of images with masks, and patches that are drawn of them.

Legend: H and W pixels of an image, h and w cells of its map, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.backbones.feature_maps import FeatureMaps, fixed_size
from siamtransfer.checkpoints.assumptions import reading_provenance, say_assumptions
from siamtransfer.checkpoints.read_backbone import ReadBackbone, load_backbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.attention.subjects import InputSize, batches
from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.probe import Patches
from siamtransfer.evaluation.segmentation.shares import patch_shares
from siamtransfer.segmentation.data.masked_images import MaskedImages, read_pair
from siamtransfer.segmentation.data.registry import SCENES
from siamtransfer.segmentation.data.scenes import SIZE as SCENE_SIZE
from siamtransfer.utils.errors import UserError

DEFAULT_SIDE = 448
"""A multiple of the usual patches of 8, 14, 16 and 32 pixels."""
DEFAULT_PATCHES = 100
"""Patches of an image, where the memory budget holds so many."""
_GIB = 2**30
_LEFT_OUT = -1  # label of a patch that is ignored


class PixelMaps(nn.Module):
    """x[N, 3, H, W] -> the pixels of patches as features, [N, 3 p p, H / p, W / p]; H and W are multiples
    of p."""

    def __init__(self, side: int):
        super().__init__()
        self.multiple = side

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_unshuffle(x, self.multiple)


@dataclass(frozen=True)
class DenseModel:
    """A frozen backbone, or raw pixels, in front of images.

    Attributes:
        source: the checkpoint's path, or the name of a baseline.
        part: pixels to maps.
        read: None for raw pixels.
    """

    source: str
    part: FeatureMaps | PixelMaps
    read: ReadBackbone | None
    size: InputSize
    runtime: Runtime
    batch: int

    @classmethod
    def open(cls, config: SegmentationConfig, runtime: Runtime) -> DenseModel:
        """Reads the checkpoint.

        Raises:
            UserError: it cannot be read, it has no such layer or no maps, or takes images of another size.
        """
        source = config.checkpoint
        assert source is not None
        if source == "pixels":
            part: FeatureMaps | PixelMaps = PixelMaps(config.pixel_patch)
            size = _input_size(config, config.pixel_patch, None, "a patch of pixels")
            return cls(source, part, None, size, runtime, config.forward_batch_size)
        backbone, read = load_backbone(
            source, branch=config.branch, trust_pickle=config.trust_pickle, options=config
        )
        say_assumptions(read)
        part = FeatureMaps(backbone.to(runtime.device), config.layers)
        size = _input_size(config, part.multiple, fixed_size(backbone), backbone.name)
        return cls(source, part, read, size, runtime, config.forward_batch_size)

    def maps(self, images: MaskedImages, indices: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """(index, map float32[D, h, w] on the device of the runtime) of these images, in their order.

        Raises:
            UserError: an image cannot be read, or a feature is not finite.
        """
        for numbers, _, pixels in batches(images, list(indices), self.size, self.batch):
            yield from zip(numbers, self._run(pixels), strict=True)

    def _run(self, pixels: Tensor) -> Tensor:
        """float32[b, D, h, w] of pixels uint8[b, 3, H, W]."""
        device = self.runtime.device
        mean, std = self.read.normalisation if self.read else ((0.0,) * 3, (1.0,) * 3)
        shift, scale = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in (mean, std))
        with torch.inference_mode(), self.runtime.autocast():
            result: Tensor = self.part((pixels.to(device).float() - shift) / scale).float()
        if not bool(torch.isfinite(result).all()):
            raise UserError(
                f"{self.source} gives features that are not finite: its weights are damaged, or "
                f"{self.runtime.precision} is too narrow for it (try --precision float32)"
            )
        return result

    @property
    def protocol(self) -> dict[str, Any]:
        """What moves the numbers, of the features."""
        return {
            "input": {
                "side": self.size.side,
                "resize": "square" if self.size.square else "shorter",
                "interpolation": "bilinear, antialiased",
                "view": "whole image",
            },
            "precision": self.runtime.precision,
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """What identifies the features in a record. The layers are among it, so that two can be compared."""
        read = self.read
        return {
            "backbone": self.source,
            "layers": self.part.layers if isinstance(self.part, FeatureMaps) else "pixels",
            **({"pixel_patch": self.part.multiple} if isinstance(self.part, PixelMaps) else {}),
            "architecture": read.architecture.as_dict() if read else None,
            "format": read.format if read else None,
            "branch": read.branch if read else None,
            "weights_digest": read.digest if read else None,
            **reading_provenance(read),
        }


def _input_size(
    config: SegmentationConfig, multiple: int, only: tuple[int, int] | None, name: str
) -> InputSize:
    """The size that the options ask for, rounded to a multiple of a patch.

    Raises:
        UserError: the network takes images of another size only.
    """
    square = config.resize == "square"
    if only is not None:
        if not square or config.size not in (None, only[0]) or only[0] != only[1]:
            raise UserError(
                f"{name} takes images of {only[0]} x {only[1]} pixels only: leave --size and --resize out"
            )
        return InputSize(only[0], True, multiple)
    own = (config.data.size or SCENE_SIZE) if config.data.name == SCENES else DEFAULT_SIDE
    side = config.size or own
    return InputSize(max(1, round(side / multiple)) * multiple if square else side, square, multiple)


def draw_patches(model: DenseModel, images: MaskedImages, config: SegmentationConfig) -> Patches:
    """Patches of all images with their classes, as many of each image as the options and their memory
    budget allow; which ones depends on the seed and the number of the image alone.

    Raises:
        UserError: an image or a mask cannot be read, no patch has a class, or the budget does not hold one
            patch an image.
    """
    classes = len(images.classes)
    store: _Store | None = None
    for index, features in model.maps(images, range(len(images))):
        _, mask = read_pair(images, index)
        height, width = features.shape[1:]
        store = store or _Store.of(len(images), features.shape[0], classes, config)
        labels = patch_labels(mask, (height, width), classes, images.ignore, config.patch_label)
        there = np.flatnonzero(labels.ravel() != _LEFT_OUT)
        if len(there) > store.per_image:
            generator = np.random.default_rng([config.seed, index])
            there = np.sort(generator.permutation(there)[: store.per_image])
        chosen = features.flatten(1).T[torch.from_numpy(there).to(features.device)]
        shares = patch_shares(mask, (height, width), classes, images.ignore)[there]
        store.add(chosen.cpu(), torch.from_numpy(labels.ravel()[there]), torch.from_numpy(shares), index)
    if store is None or not store.filled:
        raise UserError(
            f"no patch of {images.name}/{images.split} has a class: all are ignored; look at its masks"
        )
    return store.patches(images.classes)


class _Store:
    """Room for up to `per_image` patches of each image."""

    def __init__(self, images: int, dim: int, classes: int, per_image: int):
        self.per_image, self.filled = per_image, 0
        self._features = torch.empty(images * per_image, dim)
        self._shares = torch.empty(images * per_image, classes)
        self._labels = torch.empty(images * per_image, dtype=torch.int64)
        self._images = torch.empty(images * per_image, dtype=torch.int64)

    @classmethod
    def of(cls, images: int, dim: int, classes: int, config: SegmentationConfig) -> _Store:
        """As much room as the options allow."""
        bytes_each = images * 4 * (dim + classes)
        allowed = int(config.memory_budget * _GIB) // bytes_each
        wanted = config.patches_per_image
        if allowed < (wanted or 1):
            least = bytes_each * (wanted or 1) / _GIB
            raise UserError(
                f"--memory-budget {config.memory_budget:g} GiB does not hold {wanted or 1} patches of "
                f"{images} images with {dim} features, which take {least:.3g} GiB: raise it, or lower "
                "--patches-per-image or --data.count"
            )
        return cls(images, dim, classes, wanted or min(allowed, DEFAULT_PATCHES))

    def add(self, features: Tensor, labels: Tensor, shares: Tensor, image: int) -> None:
        part = slice(self.filled, self.filled + len(labels))
        self._features[part], self._labels[part], self._images[part] = features, labels, image
        self._shares[part] = shares
        self.filled += len(labels)

    def patches(self, classes: tuple[str, ...]) -> Patches:
        end = self.filled
        return Patches(
            self._features[:end], self._labels[:end], self._images[:end], classes, self._shares[:end]
        )


def patch_labels(
    mask: np.ndarray,
    cells: tuple[int, int],
    classes: int,
    ignore: int,
    rule: Literal["majority", "nearest"] = "majority",
) -> np.ndarray:
    """int64[h, w]: the class of every cell of a grid over mask[H, W]; -1 for an ignored cell.

    A pixel belongs to the cell that its centre lies in. By `majority` a cell has the most frequent value of
    its pixels, ignored being one; of equally frequent ones the lowest class. A cell without a pixel (the
    grid is finer than the mask) takes the pixel at its centre, as every cell does by `nearest`.
    """
    height, width = mask.shape
    h, w = cells
    truth = np.where(mask == ignore, classes, mask).astype(np.int64)
    rows = np.minimum(((np.arange(h) + 0.5) * height / h).astype(np.int64), height - 1)
    columns = np.minimum(((np.arange(w) + 0.5) * width / w).astype(np.int64), width - 1)
    labels = truth[rows[:, None], columns[None, :]]
    if rule == "majority":
        row = ((np.arange(height) + 0.5) * h / height).astype(np.int64)
        column = ((np.arange(width) + 0.5) * w / width).astype(np.int64)
        cell = row[:, None] * w + column[None, :]
        counts = np.bincount((cell * (classes + 1) + truth).ravel(), minlength=h * w * (classes + 1)).reshape(
            h, w, classes + 1
        )
        labels = np.where(counts.any(axis=2), counts.argmax(axis=2), labels)
    return np.where(labels == classes, _LEFT_OUT, labels)
