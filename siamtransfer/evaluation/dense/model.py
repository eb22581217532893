"""Maps of features of images: a selection of layers of a frozen backbone, or raw pixels.

Legend: H and W pixels of an image, h and w cells of its map, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_maps import FeatureMaps, fixed_size
from siamtransfer.checkpoints.assumptions import frozen_provenance
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.dense.config import DenseConfig
from siamtransfer.evaluation.dense.input_size import (
    InputSize,
    ShownImages,
    batches,
    choose_input_size,
    to_input,
)
from siamtransfer.evaluation.dense.network import read_frozen, run_frozen
from siamtransfer.evaluation.dense.windows import Place, View, Windows, choose_windows
from siamtransfer.utils.errors import UserError

DEFAULT_SIDE = 448
"""A multiple of the usual patches of 8, 14, 16 and 32 pixels."""
PIXEL_PATCH = 8
"""Side of the patches of raw pixels."""


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
        batch: images or windows that go through it at once.
        windows: parts in which an image is seen; None: whole.
    """

    source: str
    part: FeatureMaps | PixelMaps
    read: ReadBackbone | None
    size: InputSize
    runtime: Runtime
    batch: int
    windows: Windows | None = None

    @classmethod
    def open(
        cls,
        options: DenseConfig,
        runtime: Runtime,
        *,
        side: int = DEFAULT_SIDE,
        pixel_patch: int = PIXEL_PATCH,
        window: tuple[int | None, int | None] = (None, None),
    ) -> DenseModel:
        """Reads the checkpoint.

        Args:
            side: of the images where --size is not given.
            pixel_patch: side of the patches of raw pixels.
            window: side and stride of sliding windows; None: see `choose_windows`.

        Raises:
            UserError: it cannot be read, it has no such layer or no maps, or takes images of another size.
        """
        assert options.checkpoint is not None
        if options.checkpoint == "pixels":
            return cls.of_pixels(options, runtime, side=side, pixel_patch=pixel_patch, window=window)
        backbone, read = read_frozen(options, runtime)
        model = cls.of(backbone, read, options, runtime, side=side, window=window)
        return replace(model, source=options.checkpoint)

    @classmethod
    def of_pixels(
        cls,
        options: DenseConfig,
        runtime: Runtime,
        *,
        side: int = DEFAULT_SIDE,
        pixel_patch: int = PIXEL_PATCH,
        window: tuple[int | None, int | None] = (None, None),
    ) -> DenseModel:
        """The baseline without a network; see `open`."""
        size = choose_input_size(options, pixel_patch, None, "a patch of pixels", side)
        windows = choose_windows(*window, pixel_patch, None, "pixels")
        batch = options.forward_batch_size
        return cls("pixels", PixelMaps(pixel_patch), None, size, runtime, batch, windows)

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        read: ReadBackbone,
        options: DenseConfig,
        runtime: Runtime,
        *,
        side: int = DEFAULT_SIDE,
        window: tuple[int | None, int | None] = (None, None),
    ) -> DenseModel:
        """A backbone that is read and lies on the device of `runtime`; see `open`."""
        part = FeatureMaps(backbone, options.layers)
        only = fixed_size(backbone)
        windows = choose_windows(*window, part.multiple, only, backbone.name)
        size = choose_input_size(
            options, part.multiple, None if windows else only, backbone.name, max(side, *(only or (0,)))
        )
        if windows is not None and only is not None and size.side < windows.side:
            raise UserError(
                f"{backbone.name} takes images of {only[0]} x {only[1]} pixels only, and --size {size.side} "
                "has no such window: raise --size"
            )
        return cls(read.path, part, read, size, runtime, options.forward_batch_size, windows)

    def maps(self, images: ShownImages, indices: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """(index, map float32[D, h, w] on the device of the runtime) of these images, in their order.

        Raises:
            UserError: an image cannot be read, or a feature is not finite.
        """
        for numbers, _, pixels in batches(images, indices, self.size, self.batch):
            yield from zip(numbers, self.run(pixels), strict=True)

    def views(self, images: ShownImages, indices: Sequence[int]) -> Iterator[tuple[int, list[View]]]:
        """(index, views) of these images, in their order: the windows of an image, or the whole image as its
        only view. Maps are on the device of the runtime; those of one image are held at once.

        Raises:
            UserError: see `maps`.
        """
        if self.windows is None:
            for index, features in self.maps(images, indices):
                yield index, [View(features, Place.whole(*features.shape[1:]))]
            return
        for index in indices:
            image = images.image(index)
            pixels = to_input(image, self.size.of(*image.shape[:2]))
            places = self.windows.places(*pixels.shape[1:])
            parts = torch.stack([pixels[:, p.top : p.bottom, p.left : p.right] for p in places])
            maps = [features for part in parts.split(self.batch) for features in self.run(part)]
            yield index, [View(features, place) for features, place in zip(maps, places, strict=True)]

    def run(self, pixels: Tensor) -> Tensor:
        """float32[b, D, h, w] of pixels uint8[b, 3, H, W].

        Raises:
            UserError: a feature is not finite.
        """
        return run_frozen(self.part, pixels, self.read, self.runtime, self.source)

    @property
    def protocol(self) -> dict[str, Any]:
        """What moves the numbers, of the features."""
        return {
            "input": {
                "side": self.size.side,
                "resize": "square" if self.size.square else "shorter",
                "interpolation": "bilinear, antialiased",
                "view": "whole image"
                if self.windows is None
                else f"windows of {self.windows.side} pixels, stride {self.windows.stride}",
            },
            "precision": self.runtime.precision,
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """What identifies the features in a record. The layers are among it, so that two can be compared."""
        return {
            **frozen_provenance(self.source, self.read),
            "layers": self.part.layers if isinstance(self.part, FeatureMaps) else "pixels",
            **({"pixel_patch": self.part.multiple} if isinstance(self.part, PixelMaps) else {}),
        }
