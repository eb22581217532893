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
    """ξ ← m ξ + (1 - m) θ over all parameters that take gradients online; frozen ones, which are equal in
    both, would only move by rounding. Buffers (batch-norm statistics) of the target stay."""
    pairs = zip(target.parameters(), online.parameters(), strict=True)
    moving = [(local(average), local(weight)) for average, weight in pairs if weight.requires_grad]
    if not moving:
        return
    averages: list[Tensor] = [average for average, _ in moving]
    weights: list[Tensor] = [weight for _, weight in moving]
    torch._foreach_mul_(averages, momentum)
    torch._foreach_add_(averages, weights, alpha=1 - momentum)


def rising(base: float, done: float) -> float:
    """The momentum after the fraction `done` of all steps: a cosine from `base` to 1 (BYOL, section 3.2)."""
    return 1 - (1 - base) * (1 + math.cos(math.pi * done)) / 2
