"""SGD for large batches, in which the step of each weight tensor is proportional to its norm.

Legend, for one tensor: w its values, g their gradient, μ momentum, η `trust`, λ the weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class _Layerwise(torch.optim.Optimizer):
    """μ ← m μ + u and w ← w - lr μ; a subclass computes u from g. The learning rate multiplies after the
    momentum, as in torch's SGD. In groups whose option `adapted` is False, u = g + λ w. With `clip` a trust
    ratio r becomes min(r / lr, 1), so that no step is longer than that of SGD."""

    def __init__(
        self,
        parameters: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        clip: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "clip": clip,
            "adapted": True,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                state = self.state[w]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(w)
                if group["adapted"]:
                    u = self.direction(w, w.grad, group)
                else:
                    u = w.grad.add(w, alpha=group["weight_decay"])
                momentum = state["momentum_buffer"]
                momentum.mul_(group["momentum"]).add_(u)
                w.add_(momentum, alpha=-group["lr"])
        return loss

    def direction(self, w: Tensor, g: Tensor, group: dict[str, Any]) -> Tensor:
        """u of one parameter."""
        raise NotImplementedError


class LARS(_Layerwise):
    """u = (g + λ w) η |w| / |g + λ w|, or g + λ w where either norm is zero (You et al., arXiv 1708.03888, in
    the form of the code of MoCo v3, Barlow Twins, VICReg and DINO)."""

    def direction(self, w: Tensor, g: Tensor, group: dict[str, Any]) -> Tensor:
        u = g.add(w, alpha=group["weight_decay"])
        w_norm, u_norm = w.norm(), u.norm()
        ratio = _clipped(group["trust"] * w_norm / u_norm, group)
        return u * torch.where((w_norm > 0) & (u_norm > 0), ratio, 1.0)


class LARC(_Layerwise):
    """u = (g + λ w) η |w| / (|g| + λ |w|), or g alone where either norm is zero (apex's LARC around SGD, as
    SwAV's code uses it; solo-learn's LARS is the same but for an epsilon)."""

    EPSILON = 1e-8

    def direction(self, w: Tensor, g: Tensor, group: dict[str, Any]) -> Tensor:
        decay, w_norm, g_norm = group["weight_decay"], w.norm(), g.norm()
        ratio = _clipped(group["trust"] * w_norm / (g_norm + decay * w_norm + self.EPSILON), group)
        return torch.where((w_norm > 0) & (g_norm > 0), g.add(w, alpha=decay) * ratio, g)


def _clipped(ratio: Tensor, group: dict[str, Any]) -> Tensor:
    return (ratio / group["lr"]).clamp(max=1) if group["clip"] else ratio
