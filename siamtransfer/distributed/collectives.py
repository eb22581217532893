"""What losses need of the other ranks: their rows, with gradients or without, and sums.

Every function is the identity (or the plain sum) in a process that is alone, so a loss reads the same on one
rank and on many.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_rows(n: int, device: torch.device) -> Tensor:
    """Where this rank's `n` rows stand among those of all ranks, int64[n]."""
    return torch.arange(n, device=device) + n * rank()


def share(x: Tensor) -> Tensor:
    """Rank 0's tensor on every rank, in the place of each one's own `x` of the same shape and type."""
    if world() > 1:
        dist.broadcast(x, src=0)
    return x


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """Rows [n, …] of all ranks as [world * n, …] in rank order, as constants."""
    if world() == 1:
        return x.detach()
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def gather_with_gradient(x: Tensor) -> Tensor:
    """Rows of all ranks [world * n, …]; a gradient with respect to a row goes back to the rank it came from,
    summed over the ranks whose losses it entered."""
    return _Gather.apply(x) if world() > 1 else x


def sum_with_gradient(x: Tensor) -> Tensor:
    """The sum over ranks; its gradient on every rank is the sum of the ranks' gradients."""
    return _Sum.apply(x) if world() > 1 else x


@torch.no_grad()
def total(x: Tensor) -> Tensor:
    """The sum over ranks, as a constant."""
    if world() == 1:
        return x.detach()
    summed = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient).chunk(world())[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return total(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient)
