"""Losses in float32 or better, whatever half precision the networks before them compute in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.distributed.runtime import exact_matmul


def to_float32(x: Tensor) -> Tensor:
    """`x` in float32 where it is of half precision; float32 and float64 stay."""
    return x.float() if x.dtype.itemsize < 4 else x


def l2_normalize(x: Tensor) -> Tensor:
    """The rows of x[N, d] on the unit sphere, in float32 or better."""
    return F.normalize(to_float32(x), dim=1)


@contextlib.contextmanager
def no_tf32(x: Tensor) -> Iterator[None]:
    """Products on the device of `x` keep the precision of their factors: no autocast, no TF32."""
    with torch.autocast(x.device.type, enabled=False), exact_matmul():
        yield
