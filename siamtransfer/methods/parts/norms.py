"""Which norm the heads of a method have: batch norm, or one that looks at a single image, or none.

BYOL, SimSiam and SimCLR let projector and predictor choose, so that batch statistics can be taken out of a
method one place at a time (Richemond et al., BYOL works even without batch statistics, arXiv 2010.10241).
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from siamtransfer.backbones.norms import StandardisedLinear, group_count

Norm = Literal["none", "plain", "affine"]
"""A norm after a layer: none, without affine parameters, or with them."""

HeadNorm = Literal["batch", "layer", "group", "group-ws", "none"]
"""Which norm: over the batch; over the channels of an image, or over groups of them; `group-ws` also
standardises the weights of the linear layer before it; none takes every norm of a head out."""


def norm_layers(norm: Norm, kind: HeadNorm, width: int) -> list[nn.Module]:
    """The norm of h[N, width] as a list of one module, or of none."""
    if norm == "none" or kind == "none":
        return []
    affine = norm == "affine"
    match kind:
        case "batch":
            return [nn.BatchNorm1d(width, affine=affine)]
        case "layer":
            return [nn.LayerNorm(width, elementwise_affine=affine)]
        case "group" | "group-ws":
            return [nn.GroupNorm(group_count(width), width, affine=affine)]


def linear_before(norm: Norm, kind: HeadNorm, before: int, after: int, *, bias: bool) -> nn.Linear:
    """The linear layer that such a norm follows."""
    layer = StandardisedLinear if kind == "group-ws" and norm != "none" else nn.Linear
    return layer(before, after, bias=bias)
