"""What both detection engines take as the trunk of a feature pyramid, whatever network it is.

stage_trunk.py makes one of networks in stages (ConvNeXt, Swin, RegNet ...), vit_pyramid.py of plain ViTs;
build_pyramid.py chooses between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from siamtransfer.backbones.library_backbone import LibraryBackbone

LEVELS = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
"""The maps below a feature pyramid by Detectron2's names, with their strides in pixels."""


class PyramidTrunk(nn.Module, ABC):
    """x[N, 3, H, W], normalised -> maps by their names, each [N, channels, H / stride, W / stride].

    H and W are multiples of `size_divisibility`.

    Attributes:
        bottom_up: the network; in its `state_dict` are the library's names of tensors, exactly those of a
            `ReadBackbone`. What a pyramid needs beside it (norms of maps, levels of a ViT) is drawn from
            torch's generator.
        channels, strides: of each map by its name, from the finest to the coarsest.
        size_divisibility: of an image, in pixels.
        is_pyramid: whether the maps are the levels of a feature pyramid (p2, p3 ...), all of as many
            channels. Otherwise they are those of LEVELS, and a pyramid is built on them.
    """

    bottom_up: LibraryBackbone
    channels: dict[str, int]
    strides: dict[str, int]
    size_divisibility: int
    is_pyramid: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The maps, from the finest to the coarsest."""
