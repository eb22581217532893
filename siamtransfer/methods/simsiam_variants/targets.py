"""What a prediction aims at: the target t[N,d] that SimSiam makes of a projection z, and others in its place.

SimSiam's is z behind the stop-gradient. Here the stop-gradient may let a share of the gradient through, a
second network may project in the place of the first, or an average over past augmentations may stand in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.methods.base import StepInfo
from siamtransfer.methods.parts.precision import to_float32
from siamtransfer.metrics.spread import output_std
from siamtransfer.utils.checks import at_least, within
from siamtransfer.utils.errors import UserError


@dataclass
class TargetConfig:
    """The target; the defaults are SimSiam's, z behind a stop-gradient."""

    gradient: float = 0.0
    """Share γ of its gradient that a target passes on: 0 is the stop-gradient, 1 is none (ours)."""
    spread: list[float] | None = None
    """[low, high]: pass γ on only while outputs spread. With r the moving average of the outputs' standard
    deviation times the root of d (1 is healthy, 0 collapsed) the share is γ (r - low) / (high - low), at
    least 0 and at most γ; it starts at 0 (ours). null: always γ."""
    share: float = 0.0
    """Share α of a second network in the target α z' + (1 - α) z: 0 is SimSiam, 1 with a momentum BYOL."""
    momentum: float = 0.99
    """Momentum τ of the second network, θ' ← τ θ' + (1 - τ) θ; 0 copies, so that t = z exactly if `every` is
    1."""
    every: int = 1
    """Steps between two moves of the second network. share 1, momentum 0 and every k is the alternation of
    section 5.2: targets are computed by the weights of up to k steps ago."""
    start_epoch: int = 0
    """First epoch (from 0) with the second network; before it the target is SimSiam's (ours)."""
    stop_epoch: int | None = None
    """First epoch without it again (ours); null: none."""
    memory: float | None = None
    """Momentum m of an average over augmentations, η_x ← m η_x + (1 - m) z for every image x, which is its
    target (section 5.2: 0.8, without a predictor). It keeps images x d numbers. null: no average."""
    views: Literal["each", "mean"] = "each"
    """With more than two views, predict each other view's target, or the mean of them (FastSiam)."""

    def check(self) -> None:
        within("simsiam.target.gradient", self.gradient, 0, 1)
        within("simsiam.target.share", self.share, 0, 1)
        within("simsiam.target.momentum", self.momentum, 0, 1)
        within("simsiam.target.memory", self.memory, 0, 1)
        at_least("simsiam.target.every", self.every, 1)
        at_least("simsiam.target.start_epoch", self.start_epoch, 0)
        at_least("simsiam.target.stop_epoch", self.stop_epoch, self.start_epoch + 1)
        if self.spread is not None and not (len(self.spread) == 2 and 0 <= self.spread[0] < self.spread[1]):
            raise UserError(
                f"simsiam.target.spread is {self.spread}, but must be two rising numbers from 0, as "
                "[0.5, 0.9]"
            )
        if self.spread is not None and not self.gradient:
            raise UserError(
                "simsiam.target.spread says when simsiam.target.gradient passes, which is 0: raise that, or "
                "leave spread out"
            )

    def share_at(self, info: StepInfo) -> float:
        """α in the epoch of `moment`."""
        begun = info.epoch >= self.start_epoch
        ended = self.stop_epoch is not None and info.epoch >= self.stop_epoch
        return self.share if begun and not ended else 0.0


class StopGradient(nn.Module):
    """z -> z, of whose gradient the share γ passes; `config.spread` makes γ a function of the outputs."""

    spread: Tensor

    def __init__(self, config: TargetConfig, *, stop: bool):
        super().__init__()
        self.most = config.gradient if stop else 1.0
        self.bounds = config.spread if stop else None
        if self.bounds is not None:
            self.register_buffer("spread", torch.zeros(()))

    @property
    def share(self) -> float:
        """γ now."""
        if self.bounds is None:
            return self.most
        low, high = self.bounds
        return self.most * min(max((float(self.spread) - low) / (high - low), 0.0), 1.0)

    @torch.no_grad()
    def watch(self, z: Tensor) -> None:
        """Takes note of how the projections z[N,d] of all ranks spread."""
        if self.bounds is not None:
            self.spread.lerp_(self.spread.new_tensor(output_std(collectives.all_gather(z))), 0.1)

    def forward(self, z: Tensor) -> Tensor:
        return partial_gradient(z, self.share)


def partial_gradient(z: Tensor, share: float) -> Tensor:
    """z itself, through which the share γ of the gradient passes, as through γ z + (1 - γ) stop(z)."""
    if share == 0:
        return z.detach()
    return z if share == 1 else _Share.apply(z, share)


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, share: float) -> Tensor:
        ctx.share = share
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.share * gradient, None


class Memory(nn.Module):
    """η_x ← m η_x + (1 - m) z: for every image x an average over its augmentations (section 5.2).

    The first projections of an image start its average; it takes in all views of a step at once, of which the
    paper does not speak. Both are buffers: `average` [images, d] and `seen` [images].
    """

    average: Tensor
    seen: Tensor

    def __init__(self, images: int, dim: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("average", torch.zeros(images, dim))
        self.register_buffer("seen", torch.zeros(images, dtype=torch.bool))

    def forward(self, targets: list[Tensor], index: Tensor) -> list[Tensor]:
        """Each view's own m η_x + (1 - m) z; η_x itself then becomes the mean of them over the views."""
        old, known, m = self.average[index], self.seen[index, None], self.momentum
        moved = [torch.where(known, m * old + (1 - m) * to_float32(z), to_float32(z)) for z in targets]
        rows = collectives.all_gather(index)
        self.average[rows] = collectives.all_gather(torch.stack(moved).mean(dim=0)).to(self.average.dtype)
        self.seen[rows] = True
        return moved


def aims(targets: list[Tensor], views: int, *, each: bool, symmetric: bool) -> list[tuple[int, Tensor]]:
    """Which of `views` predictions, by its number, aims at what, given the targets of the global views.

    Every one at the targets of all other views, or at their mean (not `each`); not `symmetric`, only the
    first of every two views at the second.
    """
    if not symmetric:
        return [(i, targets[i + 1]) for i in range(0, len(targets) - 1, 2)]
    others = [(i, [t for j, t in enumerate(targets) if j != i]) for i in range(views)]
    if each:
        return [(i, target) for i, found in others for target in found]
    return [(i, torch.stack(found).mean(dim=0)) for i, found in others]
