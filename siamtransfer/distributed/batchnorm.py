"""Batch norm over the batch of all ranks, with one exchange in each direction and no wait for the device.

torch's SyncBatchNorm refuses CPU tensors, and on a GPU the host reads a mask of the ranks' shares, three
times a forward pass. Here the shares stay on the device: the ranks exchange mean, variance and count, and
combine them by the formula of Chan, Golub and LeVeque (Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances, 1979).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from siamtransfer.distributed import collectives

_NO_ROWS = 1e-20  # the count of a rank without rows: it changes no sum, and can be divided by


class Exchanges:
    """The moments that ranks exchanged in one forward pass, for its recomputation: that takes them in the
    same order and exchanges nothing."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._next: int | None = None  # None: they are recorded

    def rows(self, moments: Tensor) -> Tensor:
        """The moments [2 C + 1] of every rank as rows."""
        if self._next is None:
            self._rows.append(collectives.all_gather_flat(moments))
            return self._rows[-1]
        self._next += 1
        return self._rows[self._next - 1]

    def recording(self) -> contextlib.AbstractContextManager[None]:
        """Around the forward pass."""
        return self._used(None)

    def replaying(self) -> contextlib.AbstractContextManager[None]:
        """Around a recomputation."""
        return self._used(0)

    @contextlib.contextmanager
    def _used(self, begin: int | None) -> Iterator[None]:
        global _exchanges
        before, self._next, _exchanges = _exchanges, begin, self
        try:
            yield
        finally:
            _exchanges = before


_exchanges: Exchanges | None = None  # of the block that is being computed


class SyncedBatchNorm(_BatchNorm):
    """Batch norm over the batch of all ranks, for x[N, C, …] of any trailing shape; state as nn.BatchNorm.

    The output, the gradient of the input and the running statistics equal one rank's on the whole batch to
    rounding, also where shares are unequal or empty. Gradients of weight and bias are those of this rank's
    rows; DistributedDataParallel averages them. As torch's, it computes in float32 where x is of half
    precision, and gives x's dtype back. In eval mode it is ordinary batch norm.

    A forward pass gathers 2 C + 1 numbers of each rank, a backward pass sums 2 C numbers over ranks. Neither
    reads anything on the host, and torch.compile traces both without a graph break.

    Raises:
        ValueError: x has no dimension of channels.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (the name is torch's)
        if input.dim() < 2:
            raise ValueError(f"batch norm needs [N, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        # torch's fused kernels exist on CUDA only; the compiler fuses the plain operations by itself.
        fused = input.is_cuda and input.numel() > 0 and not torch.compiler.is_compiling()
        out, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps, fused)
        if self.running_mean is not None and self.running_var is not None:
            self._remember(mean, variance, count)
        return out

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        dtype = self.running_mean.dtype
        share = 1 / self.num_batches_tracked.to(dtype) if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(dtype), share)
        self.running_var.lerp_(unbiased.to(dtype), share)


class SyncedBatchNormAct(SyncedBatchNorm):
    """The same, with the dropout and the activation that timm's BatchNormAct2d has after its norm."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        out: Tensor = self.act(self.drop(super().forward(input)))
        return out


class _Normalise(torch.autograd.Function):
    """x, weight[C], bias[C] -> y of x's shape, and mean[C], biased variance[C] and count of all ranks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, fused: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if fused and not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous()
        # The fused kernel has 1 / √(variance + ε); with ε the same on the way back, the variance returns.
        moments = _fused_moments(x, eps) if fused else _moments(x)
        mean, variance, count = _combine(moments)
        scale = torch.rsqrt(variance + eps)
        if fused:
            out = torch.batch_norm_elemt(x, weight, bias, mean, scale, eps)
        else:
            normalised = (_wide(x) - _over(mean, x)) * _over(scale, x)
            if weight is not None and bias is not None:
                normalised = normalised * _over(weight, x) + _over(bias, x)
            out = normalised.to(x.dtype)
        ctx.fused = fused
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        ctx.set_materialize_grads(False)  # three launches of zeros a layer
        return out, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        if ctx.fused:
            of_input, of_weight, of_bias = _fused_gradients(gradient, x, weight, mean, scale, count)
        else:
            of_input, of_weight, of_bias = _gradients(gradient, x, weight, mean, scale, count)
        if weight is None:
            return of_input, None, None, None, None
        return of_input, of_weight.to(weight.dtype), of_bias.to(weight.dtype), None, None


def _moments(x: Tensor) -> Tensor:
    """[mean of each channel, biased variance of each channel, count] of this rank's x, [2 C + 1]."""
    x, channels = _wide(x), x.shape[1]
    count = x.numel() // channels
    if count == 0:
        return torch.cat([x.new_zeros(2 * channels), x.new_full((1,), _NO_ROWS)])
    variance, mean = torch.var_mean(x, _others(x), correction=0)
    return torch.cat([mean, variance, x.new_full((1,), count)])


def _fused_moments(x: Tensor, eps: float) -> Tensor:
    """`_moments` by torch's CUDA kernel, which reads x once, whatever its dtype."""
    mean, scale = torch.batch_norm_stats(x, eps)
    variance = (scale.pow(-2) - eps).clamp_(min=0)
    return torch.cat([mean, variance, mean.new_full((1,), x.numel() // x.shape[1])])


def _combine(moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean[C], biased variance[C] and count[1] over all ranks from the moments [2 C + 1] of this one."""
    channels = len(moments) // 2
    rows = collectives.all_gather_flat(moments) if _exchanges is None else _exchanges.rows(moments)
    means, variances, counts = rows.split([channels, channels, 1], dim=1)
    count = counts.sum(dim=0)
    share = counts / count
    first = means[0]  # differences from it keep their digits where means are large beside the spread
    mean = first + (share * (means - first)).sum(dim=0)
    variance = (share * (variances + (means - mean).square())).sum(dim=0)
    return mean, variance, count


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; the latter two of this rank's rows."""
    dy, centred = _wide(gradient), _wide(x) - _over(mean, x)
    own = torch.cat([dy.sum(_others(x)), (dy * centred).sum(_others(x))])
    dy_mean, product_mean = (collectives.all_reduce(own) / count).chunk(2)
    factor = scale if weight is None else scale * weight
    of_input = dy - _over(dy_mean, x) - centred * _over(scale.square() * product_mean, x)
    of_bias, product = own.chunk(2)
    return (of_input * _over(factor, x)).to(x.dtype), product * scale, of_bias


def _fused_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`_gradients` by torch's CUDA kernels."""
    if not gradient.is_contiguous(memory_format=torch.channels_last):
        gradient = gradient.contiguous()
    dy, product, of_weight, of_bias = torch.batch_norm_backward_reduce(
        gradient, x, mean, scale, weight, True, True, True
    )
    dy, product = collectives.all_reduce(torch.cat([dy, product])).chunk(2)
    # The kernel divides the sums by the sum of the counts, which it takes as int32.
    wide = None if weight is None else weight.to(mean.dtype)
    counts = count.to(torch.int32)
    of_input = torch.batch_norm_backward_elemt(gradient, x, mean, scale, wide, dy, product, counts)
    return of_input, of_weight, of_bias


def _wide(x: Tensor) -> Tensor:
    """x in float32 where it is of half precision."""
    return x.float() if x.dtype.itemsize < 4 else x


def _others(x: Tensor) -> list[int]:
    """All dimensions of x but that of the channels."""
    return [0, *range(2, x.dim())]


def _over(channels: Tensor, x: Tensor) -> Tensor:
    """A number for each channel, as a factor of x[N, C, …]."""
    return channels.view([1, -1] + [1] * (x.dim() - 2))


def synchronise(model: nn.Module) -> None:
    """Replaces every batch norm inside `model` by a `SyncedBatchNorm` that holds the same tensors.

    timm's norms that hold an activation keep it.
    """
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm):
            kind = SyncedBatchNormAct if _is_timms(child) else SyncedBatchNorm
            synced = kind(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            if isinstance(synced, SyncedBatchNormAct):
                synced.drop, synced.act = child.get_submodule("drop"), child.get_submodule("act")
            synced._parameters, synced._buffers = child._parameters, child._buffers
            synced.train(child.training)
            setattr(model, name, synced)
        else:
            synchronise(child)


def synchronise_by_torch(model: nn.Module) -> nn.Module:
    """`model` with torch's SyncBatchNorm for every batch norm; timm's norms that hold an activation keep it,
    which torch's own conversion would leave out."""
    if not any(_is_timms(module) for module in model.modules()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    from timm.layers import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(model)
    return converted


def _is_timms(module: nn.Module) -> bool:
    """Whether it is timm's BatchNormAct2d, which is a batch norm with an activation."""
    return isinstance(module, _BatchNorm) and hasattr(module, "drop") and hasattr(module, "act")
