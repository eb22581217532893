"""The contract of a backbone: images x[N, 3, H, W] float to features h[N, D]."""

from __future__ import annotations

from typing import Any

from torch import nn

from siamtransfer.backbones.names import Stem


class Backbone(nn.Module):
    """A network without a head; `forward` maps x[N, 3, H, W] to h[N, D].

    Attributes:
        name: as `build_backbone` takes it.
        width: channels of a ResNet's stem; None for timm's models, which have no such choice.
        stem: the stem of a ResNet; None for timm's models.
        dim: D.
        source: a ReadBackbone that says which file the weights come from; None for those from no file.
    """

    name: str
    width: int | None
    stem: Stem | None
    dim: int
    source: Any = None
