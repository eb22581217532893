"""What stands behind the convolutions of a ResNet, if not batch norm: nothing here depends on a batch.

- `group`: group norm (Wu and He, arXiv 1803.08494) of MOST_GROUPS groups, as BYOL without batch statistics
  has them (Richemond et al., arXiv 2010.10241). Narrow networks have fewer: no group has less than
  CHANNELS_OF_GROUP channels, as many as in the first layer of the published network.
- `group-ws`: the same, and every convolution before such a norm has standardised weights (Qiao et al., arXiv
  1903.10520).
- `none`: the scale and the shift that a batch norm has, without any statistics. He's initialisation by the
  inputs of a layer (arXiv 1502.01852) keeps the scale of the activations within a branch; so that sums of
  branches keep it too, the last scale of each branch may start at zero (SkipInit: De and Smith, arXiv
  2002.10444), which `zero_init_residual` does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from siamtransfer.backbones.names import NetworkNorm
from siamtransfer.backbones.sound_convolutions import SoundConv2d
from siamtransfer.utils.errors import UserError

MOST_GROUPS = 16
CHANNELS_OF_GROUP = 4
_EPSILON = 1e-10
"""Added to the variance of the weights of an output; 1e-5 of the paper's code would change small weights."""


def group_count(channels: int) -> int:
    """The groups of a group norm: the largest divisor of `channels` that is at most MOST_GROUPS and leaves
    every group CHANNELS_OF_GROUP channels or more; 1 for fewer channels than that."""
    most = max(1, min(MOST_GROUPS, channels // CHANNELS_OF_GROUP))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """Group norm of x[N, channels, …] by `group_count` groups."""
    return nn.GroupNorm(group_count(channels), channels, affine=affine)


def standardised(weight: Tensor) -> Tensor:
    """(w - mean) / std over the inputs of each output, the first axis of `weight`."""
    inputs = tuple(range(1, weight.ndim))
    variance, mean = torch.var_mean(weight, dim=inputs, correction=0, keepdim=True)
    return (weight - mean) * (variance + _EPSILON).rsqrt()


class StandardisedConv2d(SoundConv2d):
    """A convolution by standardised weights; its parameter holds the weights as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, standardised(self.weight), self.bias)


class StandardisedLinear(nn.Linear):
    """A linear layer by standardised weights; its parameter holds the weights as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, standardised(self.weight), self.bias)


class ChannelAffine(nn.Module):
    """y = scale * x + shift with a scale (`weight`) and a shift (`bias`) for each channel of x[N, C, …]."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x * self.weight.view(shape) + self.bias.view(shape)


NORM_LAYERS: dict[NetworkNorm, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": partial(group_norm, affine=True),
    "group-ws": partial(group_norm, affine=True),
    "none": ChannelAffine,
}
"""What makes the layer behind a convolution of so many channels; all have `weight` and `bias`."""


def standardise_convolutions(network: nn.Module) -> None:
    """Makes every convolution of `network` compute with standardised weights; tensors and names stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = StandardisedConv2d


def require_batch_norm(norm: NetworkNorm, holder: str, taker: str) -> None:
    """Raises UserError for a network with another norm than batch norm, which `taker` has no layers for.
    `holder` names the network or its file."""
    if norm != "batch":
        raise UserError(
            f"{holder} has no batch norm (backbone.norm was {norm}), and {taker} has no layers for that: its "
            "features would be others; take a backbone that was trained with backbone.norm batch"
        )
