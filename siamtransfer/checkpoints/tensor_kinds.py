"""Tensors that are no plain weights: sparse, nested, without values, quantised, complex, or larger than the
file.

A sentence here continues one that begins with the file's name.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

MOST_REPEATED = 2**30
"""Bytes that the tensors of a file may have beyond those that it stores: an expanded tensor repeats its
own."""
QUANTISED = "so its weights are quantised: give the file before quantisation, or save dequantised weights"
"""The end of a sentence on quantised weights."""


def describe_kind(name: str, tensor: Tensor) -> str | None:
    """What a tensor is instead of plain weights, and how to save those; None for plain ones."""
    said = f"has a tensor {name!r}"
    if tensor.is_nested:
        return f"{said} that is nested, of tensors of several shapes: save each as one of its own"
    if tensor.layout != torch.strided:
        return f"{said} that is sparse ({tensor.layout}): save it as tensor.to_dense()"
    if tensor.is_meta:
        return f"{said} of no values (on the device meta): save the loaded weights"
    in_a_byte = tensor.dtype.itemsize == 1 and tensor.dtype != torch.bool
    if tensor.is_quantized or (in_a_byte and (tensor.ndim > 1 or tensor.is_floating_point())):
        return f"{said} of type {tensor.dtype}, {QUANTISED}"
    return None


def bytes_of(tensor: Tensor) -> int:
    """The bytes of a tensor's numbers; 0 for one that is sparse or nested, which has no such number."""
    return 0 if tensor.is_nested or tensor.layout != torch.strided else tensor.nbytes


def describe_repeated(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The sentence where tensors would take far more memory than the file stores; None where they would
    not."""
    stored: set[int] = set()
    repeated = 0
    for name, tensor in tensors:
        if tensor.is_nested or tensor.layout != torch.strided or tensor.is_meta:
            continue
        storage = tensor.untyped_storage()
        repeated += tensor.nbytes - (0 if storage.data_ptr() in stored else storage.nbytes())
        stored.add(storage.data_ptr())
        if repeated > MOST_REPEATED:
            return (
                f"has a tensor {name!r} of {tensor.nbytes:,} bytes that repeats the few it stores: save it "
                "as tensor.clone(), if it has to be so large"
            )
    return None
