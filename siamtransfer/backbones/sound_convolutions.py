"""Strided convolutions whose gradients on the CPU do not meet two faults of oneDNN, by which torch computes.

oneDNN 3.12 (in torch 2.14) errs in the gradient of the weights:

- That of a 1x1 convolution with fewer input channels than a vector register holds numbers (16 in AVX-512, 8
  in AVX2), in float32 and channels_last, writes past its workspace. The process dies by SIGSEGV or SIGABRT,
  hangs, or goes on with wrong gradients (https://github.com/uxlfoundation/oneDNN/issues/6035).
- In bfloat16, the gradient of those places of a kernel that see nothing but padding is not written: it is
  what that memory held before, NaN or any number. The last stage of a ResNet sees such small maps in images
  of 16 pixels.

Both have an equal form that is computed elsewhere: the stride of a 1x1 convolution leaves pixels out, and
padding can be written around the map. benchmarks/native_sweep.py looks for more faults of this kind.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VECTOR = 16
"""The float32 numbers of the widest vector register."""
_Network = TypeVar("_Network", bound=nn.Module)


class SoundConv2d(nn.Conv2d):
    """An nn.Conv2d with a stride, in the equal form where the CPU computes a gradient of its weights."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type != "cpu" or not (torch.is_grad_enabled() and weight.requires_grad):
            return super()._conv_forward(x, weight, bias)
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            if self.in_channels // self.groups >= VECTOR:
                return super()._conv_forward(x, weight, bias)
            x = x[..., :: self.stride[0], :: self.stride[1]]
            return F.conv2d(x, weight, bias, groups=self.groups)
        if x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
            return super()._conv_forward(x, weight, bias)
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        if x.shape[-2] >= 2 * reach[0] and x.shape[-1] >= 2 * reach[1]:
            return super()._conv_forward(x, weight, bias)  # every place of the kernel sees a pixel
        assert not isinstance(self.padding, str)  # `same` and `valid` are for a stride of 1
        rows, columns = self.padding
        x = F.pad(x, (columns, columns, rows, rows))
        return F.conv2d(x, weight, bias, self.stride, 0, self.dilation, self.groups)


def with_sound_convolutions(network: _Network) -> _Network:
    """`network`, in which convolutions with a stride are `SoundConv2d`; tensors and their names stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.stride != (1, 1) and module.padding_mode == "zeros":
            module.__class__ = SoundConv2d
    return network
