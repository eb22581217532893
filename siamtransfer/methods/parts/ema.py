"""Momentum encoders: a second network that is a moving average of the first."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from siamtransfer.distributed.sharding import local


def momentum_copy(online: nn.Module) -> nn.Module:
    """A copy of `online` with the same weights, without gradients."""
    return copy.deepcopy(online).requires_grad_(requires_grad=False)


@torch.no_grad()
def move(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """ξ ← m ξ + (1 - m) θ over all parameters; buffers (batch-norm statistics) of the target stay."""
    averages: list[Tensor] = [local(weight) for weight in target.parameters()]
    weights: list[Tensor] = [local(weight) for weight in online.parameters()]
    torch._foreach_mul_(averages, momentum)
    torch._foreach_add_(averages, weights, alpha=1 - momentum)


def rising(base: float, done: float) -> float:
    """The momentum after the fraction `done` of all steps: a cosine from `base` to 1 (BYOL, section 3.2)."""
    return 1 - (1 - base) * (1 + math.cos(math.pi * done)) / 2
