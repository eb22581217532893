"""Rows of length one, for features of any scale."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST, LARGEST = 2.0**-30, 2.0**55  # of a row's largest value, for squares that float32 can sum


def largest_of_rows(x: Tensor) -> Tensor:
    """[...]: the largest absolute value along the last dimension of x[..., D]; not finite where a value is
    not."""
    low, high = torch.aminmax(x, dim=-1)
    return torch.maximum(high, -low)


def unit_rows(x: Tensor, dtype: torch.dtype, largest: Tensor | None = None) -> Tensor:
    """x[..., D] of any floating-point type with its last dimension scaled to length one, in `dtype` (float32
    or float64); rows of zeros stay zeros. `largest` is that of `largest_of_rows`, if it is there already.

    The squares of very large or small values are infinite or zero in float32. Rows of such values are divided
    by their largest value first; all other rows are those of torch's `normalize`.
    """
    x = x if x.dtype == torch.float64 else x.float()
    largest = largest_of_rows(x) if largest is None else largest
    unsafe = ((largest < SMALLEST) & (largest > 0)) | (largest > LARGEST)
    if bool(unsafe.any()):
        x = x.clone()
        x[unsafe] = (x[unsafe].double() / largest[unsafe, None].double()).to(x.dtype)
    return F.normalize(x.to(dtype), dim=-1)


def unit_half_rows(x: Tensor) -> Tensor:
    """float16[..., D]: `unit_rows` of x, rounded to half precision; cosines change by about 1e-4."""
    return unit_rows(x, torch.float32).half()
