"""Losses in float32 or better, whatever half precision the networks before them compute in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from siamtransfer.distributed.runtime import exact_matmul

T = TypeVar("T")
_PRODUCTS = (
    "Mm",
    "Addmm",
    "Bmm",
    "Baddbmm",
    "Addbmm",
    "Mv",
    "Addmv",
    "Dot",
    "Linear",
    "Cdist",
    "EuclideanDist",
    "Linalg",
)
"""Beginnings of the names of autograd nodes whose backward pass multiplies matrices; those of linear algebra
(a Cholesky factor, a solved system) do."""


def to_float32(x: Tensor) -> Tensor:
    """`x` in float32 where it is of half precision; float32 and float64 stay."""
    return x.float() if x.dtype.itemsize < 4 else x


def l2_normalize(x: Tensor) -> Tensor:
    """The rows of x[N, d] on the unit sphere, in float32 or better."""
    return F.normalize(to_float32(x), dim=1)


@contextlib.contextmanager
def no_tf32(x: Tensor) -> Iterator[None]:
    """Products on the device of `x` keep the precision of their factors, and so do those of their backward
    pass: no autocast, no TF32."""
    with torch.autocast(x.device.type, enabled=False), exact_matmul(), _ExactBackward():
        yield


class _ExactBackward(TorchFunctionMode):
    """Operations inside have backward passes without TF32.

    The backward pass runs after the block, when TF32 is on again. So the autograd nodes of the block's matrix
    products carry hooks, which switch it off before such a node and back after it.
    """

    def __torch_function__(
        self, function: Callable[..., T], types: object, args: Any = (), kwargs: Any = None
    ) -> T:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            return function(*args, **kwargs)
        inputs = _nodes([*args, *kwargs.values()])
        result = function(*args, **kwargs)
        waiting, seen = _nodes([result]), inputs
        while waiting - seen:
            node = (waiting - seen).pop()
            seen.add(node)
            if node.name().startswith(_PRODUCTS):
                _without_tf32(node)
            waiting |= {below for below, _ in node.next_functions if below is not None}
        return result


def _nodes(values: Iterable[object]) -> set[Node]:
    """The autograd nodes of all tensors in `values`, also of those in lists and tuples."""
    nodes: set[Node] = set()
    for value in values:
        if isinstance(value, Tensor):
            nodes |= set() if value.grad_fn is None else {value.grad_fn}
        elif isinstance(value, list | tuple):
            nodes |= _nodes(value)
    return nodes


def _without_tf32(node: Node) -> None:
    """Switches TF32 off while `node` computes."""
    products, before = torch.backends.cuda.matmul, []

    def switch_off(gradients: object) -> None:
        before.append(products.allow_tf32)
        products.allow_tf32 = False

    def switch_back(inputs: object, outputs: object) -> None:
        products.allow_tf32 = before.pop()

    node.register_prehook(switch_off)
    node.register_hook(switch_back)
