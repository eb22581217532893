"""The feature pyramid of torchvision's detectors on a backbone whose loading is verified: a ResNet of
torchvision's, or a network of timm."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from siamtransfer.backbones.names import RESNETS
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.detection.build_pyramid import PyramidOptions, build_pyramid_trunk
from siamtransfer.detection.pyramid_trunk import PyramidTrunk
from siamtransfer.detection.torchvision.trunk import load_resnet, prove_loaded, require_rgb
from siamtransfer.utils.errors import UserError

LEVELS = 4  # of the pyramid, one a stage of the trunk; pooling the last one gives a fifth to the proposals
NAMES = (*map(str, range(LEVELS)), "pool")
"""torchvision's names of the levels."""


class TimmPyramid(nn.Module):
    """x[N, 3, H, W], normalised -> the levels of a feature pyramid by torchvision's names.

    H and W are multiples of 32.

    Attributes:
        body: the trunk.
        out_channels: of each level.
    """

    def __init__(self, trunk: PyramidTrunk, channels: int):
        super().__init__()
        self.body = trunk
        self.fpn = None
        if not trunk.is_pyramid:
            self.fpn = FeaturePyramidNetwork(
                list(trunk.channels.values()), channels, LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
            )
        self.out_channels = channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.body(x)
        if self.fpn is not None:
            levels: dict[str, Tensor] = self.fpn(maps)
            maps = levels
        return OrderedDict(zip(NAMES, maps.values(), strict=True))


def build_pyramid(read: ReadBackbone, channels: int, options: PyramidOptions) -> nn.Module:
    """A feature pyramid whose trunk holds the tensors of `read`; the rest is drawn from torch's generator.

    Raises:
        UserError: no pyramid can be built on the network, it takes images of other than three channels, or a
            tensor of it did not arrive.
    """
    require_rgb(read)
    if read.architecture.name in RESNETS:
        resnet = load_resnet(read, read.architecture)
        pyramid = BackboneWithFPN(
            resnet,
            {f"layer{level + 1}": str(level) for level in range(LEVELS)},
            [resnet.dim >> (LEVELS - 1 - level) for level in range(LEVELS)],
            channels,
            norm_layer=nn.BatchNorm2d,
        )
        prove_loaded(pyramid.body, read)
        return pyramid
    trunk = _build_trunk(read, options)
    trunk.bottom_up.load_state_dict(read.state)
    prove_loaded(trunk.bottom_up, read)
    return TimmPyramid(trunk, channels)


def check_pyramid(read: ReadBackbone, options: PyramidOptions) -> None:
    """Raises UserError where `build_pyramid` would; takes no memory, and leaves torch's generator."""
    require_rgb(read)
    if read.architecture.name not in RESNETS:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            _build_trunk(read, options)


def _build_trunk(read: ReadBackbone, options: PyramidOptions) -> PyramidTrunk:
    try:
        return build_pyramid_trunk(read.architecture, options=options)
    except UserError as error:
        raise UserError(f"{read.path} holds a network that no detector is built on: {error}") from error
