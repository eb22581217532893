"""The simple feature pyramid on a plain ViT: all levels from its last map.

Source: Li et al. 2022, "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet), arXiv
2203.16527, section 3 and appendix A.2. A level finer than the map comes by transposed convolutions of
stride 2, each halving the channels, with a norm and GELU between two of them; a coarser one by max-pooling.
On each are a 1x1 and a 3x3 convolution with a norm, and pooling p5 gives p6.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.detection.pyramid_trunk import PyramidTrunk
from siamtransfer.detection.vit_trunk import VitTrunk, own_patch, why_no_plain_vit
from siamtransfer.detection.vit_windows import RelativePositions
from siamtransfer.utils.errors import UserError

STRIDES = (4, 8, 16, 32)
"""Of the levels p2 to p5."""
RESAMPLED = 16
"""The side of patches that have to be resampled."""
Attention = Literal["windowed", "global"]
_GROUPS = 32
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "nnSyncBN": nn.SyncBatchNorm,
    "GN": functools.partial(nn.GroupNorm, _GROUPS),
}


@dataclass(frozen=True, kw_only=True)
class VitOptions:
    """What a detector may choose about its ViT; the defaults are ViTDet's but for the final norm.

    Attributes:
        attention: `windowed`, or `global` in all blocks.
        window: side of a window in patches.
        global_blocks: how many blocks attend over the whole image, evenly placed, the last block one of them.
        relative_positions: whether blocks have relative positions, zero at the beginning.
        image_size: side in pixels of the images for which the global blocks have relative positions; for
            others they are interpolated.
        patch_size: side of a patch in pixels; 0: the network's own.
        final_norm: whether the map goes through the network's last norm.
        drop_path: rate of stochastic depth of the last block, growing from 0 at the first.
        norm: of the levels: `LN` over the channels as published, `BN`, `SyncBN`, `GN` of 32 groups, or empty
            for none.
        channels: of each level.
    """

    attention: Attention = "windowed"
    window: int = 14
    global_blocks: int = 4
    relative_positions: bool = True
    image_size: int = 1024
    patch_size: int = 0
    final_norm: bool = True
    drop_path: float = 0.0
    norm: str = "LN"
    channels: int = 256

    def check(self) -> None:
        """Raises UserError for a value of which nothing can be built."""
        if self.attention not in ("windowed", "global"):
            raise UserError(f"MODEL.VIT.ATTENTION is {self.attention!r}; it is windowed or global")
        for name, value, least in (
            ("WINDOW", self.window, 1),
            ("GLOBAL_BLOCKS", self.global_blocks, 0),
            ("IMAGE_SIZE", self.image_size, 1),
            ("PATCH_SIZE", self.patch_size, 0),
        ):
            if value < least:
                raise UserError(f"MODEL.VIT.{name} is {value}; it has to be {least} or more")
        if self.norm not in (*_NORMS, "LN", ""):
            known = ", ".join(["LN", *_NORMS])
            raise UserError(
                f"MODEL.FPN.NORM is {self.norm!r}; for the levels of a ViT it is empty or {known}"
            )
        if not 0 <= self.drop_path < 1:
            raise UserError(f"MODEL.TIMM.DROP_PATH is {self.drop_path}; it has to be at least 0 and below 1")

    def windows(self, depth: int) -> list[int | None]:
        """For each of `depth` blocks the side of its windows, None for attention over the whole image.

        Raises:
            UserError: there are not so many blocks.
        """
        if self.attention == "global":
            return [None] * depth
        if self.global_blocks > depth:
            raise UserError(
                f"MODEL.VIT.GLOBAL_BLOCKS is {self.global_blocks}, and the network has {depth} blocks; lower "
                "it, or set MODEL.VIT.ATTENTION global"
            )
        count = self.global_blocks
        over_all = {(number + 1) * depth // count - 1 for number in range(count)}
        return [None if block in over_all else self.window for block in range(depth)]


class VitPyramid(PyramidTrunk):
    """x[N, 3, H, W], normalised -> {"p2": ..., "p6": ...}, each [N, channels, H / stride, W / stride].

    An image whose sides are no multiples of `size_divisibility` is enlarged by zeros, below and at the right.

    Attributes:
        bottom_up: the ViT.
        relative: the relative positions of each block by its number; empty without them.
        levels: what makes p2 to p5 of the ViT's map.

    Raises:
        UserError: the network is no plain ViT, or its patches fit no level.
    """

    is_pyramid: ClassVar[bool] = True
    bottom_up: VitTrunk

    def __init__(self, architecture: Architecture, options: VitOptions):
        super().__init__()
        options.check()
        depth, patch = _depth_and_patch(architecture, options)
        self.bottom_up = VitTrunk(
            architecture,
            options.windows(depth),
            patch=patch,
            final_norm=options.final_norm,
            drop_path=options.drop_path,
        )
        self.relative = nn.ModuleDict()
        if options.relative_positions:
            side = max(1, options.image_size // patch)
            for number, (window, channels) in enumerate(
                zip(self.bottom_up.windows, self.bottom_up.head_channels, strict=True)
            ):
                self.relative[str(number)] = RelativePositions(window or side, channels)
        self.levels = nn.ModuleDict(
            {
                f"p{stride.bit_length() - 1}": _level(self.bottom_up.dim, patch, stride, options)
                for stride in STRIDES
            }
        )
        self.strides = {f"p{stride.bit_length() - 1}": stride for stride in (*STRIDES, 2 * STRIDES[-1])}
        self.channels = dict.fromkeys(self.strides, options.channels)
        self.size_divisibility = max(STRIDES[-1], patch)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        down, right = -x.shape[2] % self.size_divisibility, -x.shape[3] % self.size_divisibility
        features = self.map(functional.pad(x, (0, right, 0, down)))
        levels: dict[str, Tensor] = OrderedDict(
            (name, level(features)) for name, level in self.levels.items()
        )
        top = list(levels)[-1]
        levels[f"p{int(top[1:]) + 1}"] = functional.max_pool2d(levels[top], kernel_size=1, stride=2)
        return levels

    def map(self, x: Tensor) -> Tensor:
        """The trunk's map [N, C, h, w] of images whose sides are multiples of the patch."""
        relative = {int(number): positions for number, positions in self.relative.items()}
        features: Tensor = self.bottom_up(x, relative)
        return features


def build_vit_pyramid(architecture: Architecture, options: VitOptions) -> VitPyramid:
    """The pyramid with random weights from torch's generator.

    Raises:
        UserError: the network is no plain ViT, or the options do not go with it.
    """
    return VitPyramid(architecture, options)


def needed_patch_size(architecture: Architecture) -> int | None:
    """The side in pixels to which the patches of a plain ViT have to be resampled for levels of strides that
    are powers of 2; None where its own will do.

    MAE's ViT-H has patches of 14 pixels, and ViTDet took it with 16.

    Raises:
        UserError: no pyramid can be built on the network.
    """
    return None if _is_power_of_2(own_patch(_checked(architecture))) else RESAMPLED


def _is_power_of_2(number: int) -> bool:
    return number & (number - 1) == 0


def _checked(architecture: Architecture) -> Any:
    """timm's model of a plain ViT, without numbers.

    Raises:
        UserError: it is no plain ViT for images of three channels.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        backbone: Any = architecture.build()
    if reason := why_no_plain_vit(backbone):
        raise UserError(f"{backbone.name} cannot be the trunk of a ViT's pyramid: {reason}")
    if architecture.in_channels != 3:
        raise UserError(
            f"{backbone.name} takes images of {architecture.in_channels} channels; detectors have 3"
        )
    return backbone.model


def _depth_and_patch(architecture: Architecture, options: VitOptions) -> tuple[int, int]:
    """The number of blocks of a plain ViT, and the side in pixels of its patches in the detector.

    Raises:
        UserError: it is no plain ViT, or levels of these patches do not exist.
    """
    model = _checked(architecture)
    patch = options.patch_size or own_patch(model)
    if options.patch_size and not _is_power_of_2(patch):
        raise UserError(
            f"MODEL.VIT.PATCH_SIZE is {patch}, and the levels of a pyramid need strides that are powers of "
            f"2; set it to {RESAMPLED}, or to 0 for the network's own patches"
        )
    if not _is_power_of_2(patch):
        raise UserError(
            f"{architecture.name} has patches of {patch} pixels, and the levels of a pyramid need strides "
            f"that are powers of 2; set MODEL.VIT.PATCH_SIZE {RESAMPLED}, which resamples the patch embedding"
        )
    return len(model.blocks), patch


def _level(channels: int, patch: int, stride: int, options: VitOptions) -> nn.Sequential:
    """From the map of `patch` pixels a place to the level of `stride`."""
    layers: list[nn.Module] = []
    for step in range((patch // stride).bit_length() - 1):
        if step:
            layers += [*_norm(channels, options), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels //= 2
    layers += [nn.MaxPool2d(2) for _ in range((stride // patch).bit_length() - 1)]
    out, bias = options.channels, not options.norm
    return nn.Sequential(
        *layers,
        nn.Conv2d(channels, out, kernel_size=1, bias=bias),
        *_norm(out, options),
        nn.Conv2d(out, out, kernel_size=3, padding=1, bias=bias),
        *_norm(out, options),
    )


def _norm(channels: int, options: VitOptions) -> list[nn.Module]:
    """The norm of a map of so many channels; empty where there is none."""
    from timm.layers import LayerNorm2d

    if options.norm == "LN":
        return [LayerNorm2d(channels)]
    if options.norm == "GN" and channels % _GROUPS:
        raise UserError(f"MODEL.FPN.NORM GN has {_GROUPS} groups, which do not divide {channels} channels")
    return [_NORMS[options.norm](channels)] if options.norm else []
