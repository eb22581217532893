"""A frozen backbone and the transform of its images, for any set of images.

Features are those of `siamtransfer features` on the same images, bit for bit: the same crops in the same
batches through the same network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_layers import OUTPUT, FeatureLayers
from siamtransfer.backbones.fold_batchnorm import fold_batchnorm
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.assumptions import frozen_provenance
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.data.imageset import ImageSet, channels_of
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.labelled_images import require_channels
from siamtransfer.evaluation.transform import choose_transform
from siamtransfer.features.extract import Pass, Transform, pixel_transform
from siamtransfer.features.readable import FeatureBlock, feature_blocks
from siamtransfer.utils.errors import UserError

PIXELS = "pixels"
"""The baseline without a network."""


@dataclass(frozen=True)
class Embedder:
    """A frozen network, and how images are made ready for it.

    Attributes:
        source: the checkpoint's path, or the name of a baseline.
        network: a module x[b,C,H,W] -> h[b,D]; None for raw pixels.
        read: what is known of the network; None for raw pixels.
        layers: which layers the features come from.
        batch, workers: images at once, and processes that decode.
    """

    source: str
    network: nn.Module | None
    read: ReadBackbone | None
    layers: str
    transform: Transform
    runtime: Runtime
    batch: int = 256
    workers: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What moves the features."""
        return {
            "transform": asdict(self.transform),
            "layers": self.layers,
            "precision": self.runtime.precision,
        }

    @property
    def backbone_provenance(self) -> dict[str, Any]:
        """What identifies the network, and how its file was read."""
        return frozen_provenance(self.source, self.read)

    def blocks(self, images: ImageSet) -> Iterator[FeatureBlock]:
        """The images in their order, `batch` readable ones at a time; see `feature_blocks`."""
        options = Pass(self.runtime, self.batch, self.workers)
        return feature_blocks(self.network, images, self.transform, options)


def make_embedder(
    source: str,
    module: nn.Module | None,
    read: ReadBackbone | None,
    images: list[ImageSet],
    runtime: Runtime,
    *,
    layers: str = OUTPUT,
    crop: int | None = None,
    resize: int | None = None,
    batch: int = 256,
    workers: int = 0,
) -> Embedder:
    """The embedder of a network, which moves to the runtime's device, for these sets of images; the first
    decides the transform. `module` None is raw pixels.

    Raises:
        UserError: the network has no such layers, or takes another number of channels than the images have.
    """
    if runtime.world_size > 1:
        raise UserError("images are embedded by one process: start the program without launch or torchrun")
    first = images[0]
    transform = choose_transform(read, first.image_size, crop=crop, resize=resize)
    network = module
    if module is None:
        if layers != OUTPUT:
            raise UserError(f"raw pixels have no layer {layers!r}: leave --layers out")
        if crop is None and resize is None:
            transform = pixel_transform(transform, sum(map(len, images)), channels_of(first))
    else:
        require_channels(source, module, *images)
        if isinstance(module, Backbone):
            network = FeatureLayers(module, [layers])
            if isinstance(module, ResNetBackbone):
                network.backbone = fold_batchnorm(module)
        elif layers != OUTPUT:
            raise UserError(f"a module of one's own has no layer {layers!r}: leave layers out")
        assert network is not None
        network.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Embedder(source, network, read, layers, transform, runtime, batch, workers)
