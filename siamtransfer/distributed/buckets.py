"""The buckets in which DistributedDataParallel sums gradients, settled before the first step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def settle_buckets(model: nn.parallel.DistributedDataParallel) -> None:
    """Makes torch regroup the gradients now instead of after the first step of this process.

    torch fills its buckets anew once, in the order in which the first backward pass gave the gradients. From
    three ranks on, the order of the summands, and so the rounding, depends on a gradient's place in its
    bucket. A resumed run would do its first step in other buckets than a run that was not stopped. So a
    backward pass of zeros comes first, from the last parameter to the first. Nothing of the model changes.
    """
    module = model.module
    for each in module.parameters():
        if each.requires_grad:  # with the strides of its bucket, so that torch does not warn
            each.grad = torch.empty_strided(each.size(), each.stride(), dtype=each.dtype, device=each.device)
            each.grad.zero_()
    model.module = _Touch(module)
    try:
        model(torch.zeros((), device=next(module.parameters()).device)).backward()
    finally:
        model.module = module
        model.zero_grad(set_to_none=True)


class _Touch(nn.Module):
    """Zero, with a gradient of zeros for every parameter of `touched`, whose buffers it has too."""

    def __init__(self, touched: nn.Module):
        super().__init__()
        self.touched = touched

    def forward(self, zero: Tensor) -> Tensor:
        for parameter in self.touched.parameters():
            if parameter.requires_grad:
                zero = zero + (parameter * 0).sum()
        return zero
