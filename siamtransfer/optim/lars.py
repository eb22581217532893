"""SGD for large batches, in which the step of each weight tensor is proportional to its norm.

Legend, for one tensor: w its values, g their gradient, μ momentum, η `trust`, λ the weight decay.

A step treats all tensors of a group by torch's multi-tensor operations. The trust ratios stay on the device
as one small tensor, so the host waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from siamtransfer.distributed.sharding import local, norms


class _Layerwise(torch.optim.Optimizer):
    """μ ← m μ + u and w ← w - lr μ; u is g + λ w times a ratio that a subclass computes. The learning rate
    multiplies after the momentum, as in torch's SGD. In groups whose option `adapted` is False, u = g + λ w.
    With `clip` a trust ratio r becomes min(r / lr, 1), so that no step is longer than that of SGD."""

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
            weights = [w for w in group["params"] if w.grad is not None]
            if weights:
                self._update(weights, [w.grad for w in weights], group)
        return loss

    def _update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        momenta = []
        for w in weights:
            state = self.state[w]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(w)
            momenta.append(state["momentum_buffer"])
        updates = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        if group["adapted"]:
            ratios = self.ratios(weights, gradients, updates, group)
            torch._foreach_mul_([local(update) for update in updates], ratios.unbind())
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, updates)
        torch._foreach_add_(weights, momenta, alpha=-group["lr"])

    def ratios(
        self, weights: list[Tensor], gradients: list[Tensor], decayed: list[Tensor], group: dict[str, Any]
    ) -> Tensor:
        """What multiplies each of the `decayed` tensors g + λ w, as a tensor [len(weights)]."""
        raise NotImplementedError


class LARS(_Layerwise):
    """u = (g + λ w) η |w| / |g + λ w|, or g + λ w where either norm is zero (You et al., arXiv 1708.03888, in
    the form of the code of MoCo v3, Barlow Twins, VICReg and DINO)."""

    def ratios(
        self, weights: list[Tensor], gradients: list[Tensor], decayed: list[Tensor], group: dict[str, Any]
    ) -> Tensor:
        w_norm, u_norm = norms(weights), norms(decayed)
        ratio = _clipped(group["trust"] * w_norm / u_norm, group)
        return torch.where((w_norm > 0) & (u_norm > 0), ratio, 1.0)


class LARC(_Layerwise):
    """u = (g + λ w) η |w| / (|g| + λ |w|), or g alone where either norm is zero (apex's LARC around SGD, as
    SwAV's code uses it; solo-learn's LARS is the same but for an epsilon)."""

    EPSILON = 1e-8

    def ratios(
        self, weights: list[Tensor], gradients: list[Tensor], decayed: list[Tensor], group: dict[str, Any]
    ) -> Tensor:
        decay, w_norm, g_norm = group["weight_decay"], norms(weights), norms(gradients)
        ratio = _clipped(group["trust"] * w_norm / (g_norm + decay * w_norm + self.EPSILON), group)
        # g alone: with w = 0 that is g + λ w, with g = 0 it is zero.
        alone = (w_norm == 0).to(ratio.dtype)
        return torch.where((w_norm > 0) & (g_norm > 0), ratio, alone)


def _clipped(ratio: Tensor, group: dict[str, Any]) -> Tensor:
    return (ratio / group["lr"]).clamp(max=1) if group["clip"] else ratio
