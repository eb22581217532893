"""Multilayer perceptrons, the heads of methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import nn

from siamtransfer.methods.parts.norms import HeadNorm, Norm, linear_before, norm_layers

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
    kind: HeadNorm = "batch",
) -> nn.Sequential:
    """h[N, widths[0]] -> [N, widths[-1]] through linear layers, with a norm and ReLU between them.

    Args:
        widths: of the input, of every hidden layer and of the output.
        hidden: the norm after hidden layers.
        hidden_bias: whether hidden layers have a bias; None: only without a norm, which would remove it.
            Some published code has both.
        output: the norm after the last layer. No activation follows it.
        output_bias: whether the last layer has a bias.
        activation: makes the module after every hidden layer.
        rank: the last layer is the product of two linear layers with this number of channels between them.
        kind: which norm `hidden` and `output` are; none takes both out.
    """
    if kind == "none":
        hidden = output = "none"
    hidden_bias = hidden == "none" if hidden_bias is None else hidden_bias
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        linear = linear_before(hidden, kind, before, after, bias=hidden_bias)
        layers += [linear, *norm_layers(hidden, kind, after), activation()]
    before = widths[-2]
    if rank is not None:
        layers.append(nn.Linear(before, rank, bias=False))
        before = rank
    layers.append(linear_before(output, kind, before, widths[-1], bias=output_bias))
    layers += norm_layers(output, kind, widths[-1])
    return nn.Sequential(*layers)
