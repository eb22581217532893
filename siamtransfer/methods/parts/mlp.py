"""Multilayer perceptrons, the heads of methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import nn

Norm = Literal["none", "plain", "affine"]
"""Batch norm after a layer: none, without affine parameters, or with them."""

RELU = partial(nn.ReLU, inplace=True)

Activation = Literal["relu", "leaky-relu", "silu", "gelu", "identity"]
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": RELU,
    "leaky-relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "identity": nn.Identity,
}


def mlp(
    widths: list[int],
    *,
    hidden: Norm = "affine",
    hidden_bias: bool | None = None,
    output: Norm = "none",
    output_bias: bool = True,
    activation: Callable[[], nn.Module] = RELU,
    rank: int | None = None,
) -> nn.Sequential:
    """h[N, widths[0]] -> [N, widths[-1]] through linear layers, with batch norm and ReLU between them.

    Args:
        widths: of the input, of every hidden layer and of the output.
        hidden: batch norm after hidden layers.
        hidden_bias: whether hidden layers have a bias; None: only without batch norm, which would remove it.
            Some published code has both.
        output: batch norm after the last layer. No activation follows it.
        output_bias: whether the last layer has a bias.
        activation: makes the module after every hidden layer.
        rank: the last layer is the product of two linear layers with this number of channels between them.
    """
    hidden_bias = hidden == "none" if hidden_bias is None else hidden_bias
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=hidden_bias), *_norm(hidden, after), activation()]
    before = widths[-2]
    if rank is not None:
        layers.append(nn.Linear(before, rank, bias=False))
        before = rank
    layers += [nn.Linear(before, widths[-1], bias=output_bias), *_norm(output, widths[-1])]
    return nn.Sequential(*layers)


def _norm(norm: Norm, width: int) -> list[nn.Module]:
    return [] if norm == "none" else [nn.BatchNorm1d(width, affine=norm == "affine")]
