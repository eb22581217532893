"""Clipping of gradients, each tensor by its own norm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from siamtransfer.distributed.sharding import local, norms


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Scales the gradient of each parameter in place so that its norm is at most `limit` (less 1e-6 of
    slack, as in DINO's code). Parameters without a gradient are passed over.

    The factors are one small tensor on the device, so the host waits for nothing.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    factors = (limit / (norms(gradients) + 1e-6)).clamp(max=1)
    torch._foreach_mul_([local(gradient) for gradient in gradients], factors.unbind())
