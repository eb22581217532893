"""The targets t[N,d] of predictions: SimSiam's, the projection z behind a stop-gradient, and others.

The stop-gradient may pass a fraction of the gradient; a second network may compute the target; or the target
may be an average over earlier augmentations of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.methods.base import StepInfo
from siamtransfer.methods.parts.precision import to_float32
from siamtransfer.methods.simsiam_variants.gates import channel_agreement
from siamtransfer.metrics.spread import output_std
from siamtransfer.utils.checks import at_least, changed, within
from siamtransfer.utils.errors import UserError


@dataclass
class TargetConfig:
    """The target; the defaults are SimSiam's, z behind a stop-gradient."""

    gradient: float = 0.0
    """Fraction γ of its gradient that a target passes on: 0 is the stop-gradient, 1 is none (ours)."""
    spread: list[float] | None = None
    """[low, high]: pass γ on only while outputs spread. With r the moving average of the outputs' standard
    deviation times the root of d (1 is healthy, 0 collapsed) the fraction is γ (r - low) / (high - low), at
    least 0 and at most γ; it starts at 0 (ours). null: always γ."""
    gates: Literal["none", "agreement"] = "none"
    """A fraction γ_c of its own for every channel c: agreement takes γ a_c, where the gate a_c is a moving
    average of max(0, r_c) and r_c the correlation of the channel between the first two views over a batch;
    it starts at 0 (ours)."""
    fraction: float = 0.0
    """Fraction α of a second network in the target α z' + (1 - α) z: 0 is SimSiam, 1 with a momentum BYOL."""
    momentum: float = 0.99
    """Momentum τ of the second network, θ' ← τ θ' + (1 - τ) θ; 0 copies, so that t = z exactly if `every` is
    1."""
    every: int = 1
    """Steps between two moves of the second network. fraction 1, momentum 0 and every k is the alternation of
    section 5.2: targets come from the weights of up to k steps ago."""
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
        within("simsiam_variants.target.gradient", self.gradient, 0, 1)
        within("simsiam_variants.target.fraction", self.fraction, 0, 1)
        within("simsiam_variants.target.momentum", self.momentum, 0, 1)
        within("simsiam_variants.target.memory", self.memory, 0, 1)
        at_least("simsiam_variants.target.every", self.every, 1)
        at_least("simsiam_variants.target.start_epoch", self.start_epoch, 0)
        at_least("simsiam_variants.target.stop_epoch", self.stop_epoch, self.start_epoch + 1)
        if self.spread is not None and not (len(self.spread) == 2 and 0 <= self.spread[0] < self.spread[1]):
            raise UserError(
                f"simsiam_variants.target.spread is {self.spread}, but must be two rising numbers from 0, "
                "as [0.5, 0.9]"
            )
        if self.spread is not None and not self.gradient:
            raise UserError(
                "simsiam_variants.target.spread says when simsiam_variants.target.gradient passes, which is "
                "0: raise that, or leave spread out"
            )
        if self.gates != "none" and not self.gradient:
            raise UserError(
                f"simsiam_variants.target.gates {self.gates} says in which channels "
                "simsiam_variants.target.gradient passes, which is 0: raise that, or leave gates out"
            )
        of_second = ("momentum", "every", "start_epoch", "stop_epoch")
        for name in () if self.fraction else changed(self, *of_second):
            raise UserError(
                f"simsiam_variants.target.{name} is of a second network, and "
                f"simsiam_variants.target.fraction is 0: raise that, or leave {name} out"
            )

    def fraction_at(self, info: StepInfo) -> float:
        """α in the epoch of this step."""
        begun = info.epoch >= self.start_epoch
        ended = self.stop_epoch is not None and info.epoch >= self.stop_epoch
        return self.fraction if begun and not ended else 0.0


class StopGradient(nn.Module):
    """z[N,d] -> z; the fraction γ of its gradient passes. `config.spread` makes γ a function of the outputs,
    and `config.gates` gives each channel its own share of it."""

    spread: Tensor
    gates: Tensor

    def __init__(self, config: TargetConfig, dim: int, *, stop: bool):
        super().__init__()
        self.largest = config.gradient if stop else 1.0
        self.bounds = config.spread if stop else None
        if self.bounds is not None:
            self.register_buffer("spread", torch.zeros(()))
        self.gated = config.gates != "none" and stop
        if self.gated:
            self.register_buffer("gates", torch.zeros(dim))

    @property
    def fraction(self) -> float:
        """The current γ."""
        if self.bounds is None:
            return self.largest
        low, high = self.bounds
        return self.largest * min(max((float(self.spread) - low) / (high - low), 0.0), 1.0)

    @torch.no_grad()
    def update_spread(self, z: Tensor) -> None:
        """Moves the average of the outputs' spread by the projections z[N,d] of all ranks."""
        if self.bounds is not None:
            self.spread.lerp_(self.spread.new_tensor(output_std(collectives.all_gather(z))), 0.1)

    @torch.no_grad()
    def update_gates(self, first: Tensor, second: Tensor) -> None:
        """Moves the average of the channels' agreement by the projections of two views [N,d] of all ranks."""
        self.gates.lerp_(channel_agreement(first, second).to(self.gates.dtype), 0.1)

    def forward(self, z: Tensor) -> Tensor:
        fraction = self.fraction
        if self.gated and fraction:
            return partial_gradient(z, fraction * self.gates.clone())  # the buffer moves before backward
        return partial_gradient(z, fraction)


def partial_gradient(z: Tensor, fraction: float | Tensor) -> Tensor:
    """The values of z; the fraction γ of the gradient passes, as through γ z + (1 - γ) stop(z). γ is one
    number, or one for each channel [d]."""
    if isinstance(fraction, Tensor):
        return _ScaleGradient.apply(z, fraction)
    if fraction == 0:
        return z.detach()
    return z if fraction == 1 else _ScaleGradient.apply(z, fraction)


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, fraction: float | Tensor) -> Tensor:
        ctx.fraction = fraction
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.fraction * gradient, None


class TargetMemory(nn.Module):
    """η_x ← m η_x + (1 - m) z: for every image x an average over its augmentations (section 5.2).

    The first projections of an image start its average. It takes in all views of a step at once; the paper
    does not say how views are combined. Both are buffers: `average` [images, d] and `seen` [images].
    """

    average: Tensor
    seen: Tensor

    def __init__(self, images: int, dim: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("average", torch.zeros(images, dim))
        self.register_buffer("seen", torch.zeros(images, dtype=torch.bool))

    def forward(self, targets: list[Tensor], index: Tensor) -> list[Tensor]:
        """m η_x + (1 - m) z for each view; η_x itself then becomes the mean of these over the views."""
        old, known, m = self.average[index], self.seen[index, None], self.momentum
        moved = [torch.where(known, m * old + (1 - m) * to_float32(z), to_float32(z)) for z in targets]
        rows = collectives.all_gather(index)
        self.average[rows] = collectives.all_gather(torch.stack(moved).mean(dim=0)).to(self.average.dtype)
        self.seen[rows] = True
        return moved


def prediction_pairs(
    targets: list[Tensor], views: int, *, mean: bool, symmetric: bool
) -> list[tuple[int, Tensor]]:
    """Pairs of a prediction, by the number of its view of `views`, and its target.

    `targets` are those of the global views. A prediction has the targets of all other views, or the `mean` of
    them. If not `symmetric`, only the first of every two views has a target, the second one's.
    """
    if not symmetric:
        return [(i, targets[i + 1]) for i in range(0, len(targets) - 1, 2)]
    others = [(i, [t for j, t in enumerate(targets) if j != i]) for i in range(views)]
    if mean:
        return [(i, torch.stack(ts).mean(dim=0)) for i, ts in others]
    return [(i, t) for i, ts in others for t in ts]
