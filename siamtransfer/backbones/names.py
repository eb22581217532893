"""Names and choices of backbones that a configuration needs; imports no torch."""

from __future__ import annotations

from typing import Literal, NamedTuple

Stem = Literal[
    "imagenet",
    "imagenet-nopool",
    "small",
    "small-pad2",
    "small-pool",
    "small-stride2",
    "small-stride2-pool",
]
"""The first layers of a ResNet; see STEMS."""


class StemSpec(NamedTuple):
    """The first convolution of a ResNet, and whether a 3x3 max-pooling of stride 2 follows it."""

    kernel: int
    stride: int
    padding: int
    pool: bool


STEMS: dict[Stem, StemSpec] = {
    "imagenet": StemSpec(7, 2, 3, True),
    "imagenet-nopool": StemSpec(7, 2, 3, False),
    "small": StemSpec(3, 1, 1, False),
    "small-pad2": StemSpec(3, 1, 2, False),  # solo-learn's; its maps are two pixels larger
    "small-pool": StemSpec(3, 1, 1, True),
    "small-stride2": StemSpec(3, 2, 1, False),
    "small-stride2-pool": StemSpec(3, 2, 1, True),
}
"""What each stem is made of. The tensors of a stem show its kernel only; stride, padding and pooling leave no
trace in them."""

OUTPUT_STRIDES = (32, 16, 8)
"""The possible strides of a ResNet's output, counted with the stem "imagenet": below 32 the last stages are
dilated."""

NetworkNorm = Literal["batch", "group", "group-ws", "none"]
"""What stands behind each convolution of a ResNet; see norms.py."""

NORMS: tuple[NetworkNorm, ...] = ("batch", "group", "group-ws", "none")

FULL_WIDTH = 64
"""Channels of the published ResNets' stem."""

TIMM = "timm:"
"""The prefix that means timm's model of a name, also where torchvision has a model of that name."""

TORCHVISION = "torchvision:"
"""The prefix that means torchvision's model of a name."""


POSITIONS = ("antialiased", "bicubic", "bicubic-offset")
"""The ways in which code bases interpolate the position embeddings of a ViT; see vit_positions.py. timm's is
the first."""


class ResNetSpec(NamedTuple):
    """What differs between torchvision's ResNets: the block, the number of blocks in each of the four stages,
    and ResNeXt's number of groups and width per group."""

    block: Literal["basic", "bottleneck"]
    blocks: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64

    @property
    def bottleneck(self) -> bool:
        return self.block == "bottleneck"

    @property
    def expansion(self) -> int:
        """Output channels of a block in units of its stage's width."""
        return 4 if self.bottleneck else 1

    def inner_width(self, width: int) -> int:
        """The channels of the 3x3 convolutions in the first stage's blocks."""
        return int(width * self.width_per_group / 64) * self.groups


RESNETS = {
    "resnet10": ResNetSpec("basic", (1, 1, 1, 1)),
    "resnet18": ResNetSpec("basic", (2, 2, 2, 2)),
    "resnet34": ResNetSpec("basic", (3, 4, 6, 3)),
    "resnet50": ResNetSpec("bottleneck", (3, 4, 6, 3)),
    "resnet101": ResNetSpec("bottleneck", (3, 4, 23, 3)),
    "resnet152": ResNetSpec("bottleneck", (3, 8, 36, 3)),
    "resnext50_32x4d": ResNetSpec("bottleneck", (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": ResNetSpec("bottleneck", (3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": ResNetSpec("bottleneck", (3, 4, 23, 3), groups=64, width_per_group=4),
    "wide_resnet50_2": ResNetSpec("bottleneck", (3, 4, 6, 3), width_per_group=128),
    "wide_resnet101_2": ResNetSpec("bottleneck", (3, 4, 23, 3), width_per_group=128),
}
"""torchvision's ResNets by name, and resnet10: torchvision's class with one basic block in each stage, which
has no published weights and serves small experiments."""
WITHOUT_WEIGHTS = ("resnet10",)
"""Those of RESNETS that torchvision has no model of."""
