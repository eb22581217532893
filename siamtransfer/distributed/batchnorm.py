"""Batch norm that synchronises over ranks on the CPU, where torch's SyncBatchNorm refuses to work."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from siamtransfer.distributed.collectives import all_reduce_with_grad


class SyncedBatchNorm(_BatchNorm):
    """Batch norm over the batch of all ranks, for x[N, C, …] of any trailing shape; state as nn.BatchNorm.

    Mean and variance take two passes over the ranks (the mean first), so that they equal one rank's on the
    whole batch to rounding; as torch's, it computes in float32 where x is of half precision, and gives x's
    dtype back. In eval mode it is ordinary batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (the name is torch's)
        if input.dim() < 2:
            raise ValueError(f"batch norm needs [N, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        x = input.float() if input.dtype.itemsize < 4 else input
        count = all_reduce_with_grad(x.new_tensor([x.numel() / x.shape[1]]))
        mean = all_reduce_with_grad(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = all_reduce_with_grad(centred.square().sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None:
            self._remember(mean.detach(), variance.detach(), float(count))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def synchronise(model: nn.Module) -> None:
    """Replaces every batch norm inside `model` by a `SyncedBatchNorm` that holds the same tensors."""
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm):
            synced = SyncedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            synced._parameters, synced._buffers = child._parameters, child._buffers
            synced.train(child.training)
            setattr(model, name, synced)
        else:
            synchronise(child)
