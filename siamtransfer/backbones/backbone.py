"""The contract of a backbone: images x[N, 3, H, W] float to features h[N, D]; 3 or other channels."""

from __future__ import annotations

from typing import Any

from torch import nn

from siamtransfer.backbones.names import NetworkNorm, Stem
from siamtransfer.utils.errors import UserError


class Backbone(nn.Module):
    """A network without a head; `forward` maps x[N, 3, H, W] to h[N, D].

    Attributes:
        name: as `build_backbone` takes it.
        width: channels of a ResNet's stem; None for timm's models, which have no such choice.
        stem: the stem of a ResNet; None for timm's models.
        stride_in_1x1: whether a ResNet's bottleneck blocks have their stride in the first 1x1 convolution
            (MSRA's and Caffe's form) and not in the 3x3 one (torchvision's).
        output_stride: 32, or 16 and 8 for a ResNet with dilated stages.
        norm: what stands behind the convolutions of a ResNet, one of NORMS; `batch` for other networks, whose
            norms are their library's.
        heads: the number of attention heads of a ViT where it is not timm's for that name; otherwise None.
        image_size: the side in pixels for which a ViT has its position embeddings, where it is not timm's.
        pool: what a ViT gives where it is not timm's choice: `token`, the class token, or `avg`.
        activation, norm_eps: of a ViT, where they are not timm's.
        positions: how a ViT interpolates its position embeddings (one of POSITIONS) where it is not timm's
            way.
        in_channels: the channels of an image.
        dim: D.
        source: a ReadBackbone that says which file the weights come from; None for those from no file.
    """

    name: str
    width: int | None
    stem: Stem | None
    dim: int
    stride_in_1x1: bool = False
    output_stride: int = 32
    norm: NetworkNorm = "batch"
    heads: int | None = None
    image_size: int | None = None
    pool: str | None = None
    activation: str | None = None
    norm_eps: float | None = None
    positions: str | None = None
    in_channels: int = 3
    source: Any = None


def check_channels(in_channels: int) -> None:
    """Raises UserError for a number of channels that no image has."""
    if in_channels < 1:
        raise UserError(f"backbone.in_channels is {in_channels}; images have one channel or more")
