"""The multilayer perceptrons that methods put on a backbone."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

Norm = Literal["none", "plain", "affine"]
"""Batch norm after a layer: none, without affine parameters, or with them."""


def mlp(
    widths: list[int], *, hidden: Norm = "affine", output: Norm = "none", output_bias: bool = True
) -> nn.Sequential:
    """h[N, widths[0]] -> [N, widths[-1]] through linear layers, with batch norm and ReLU between them.

    A hidden linear layer has a bias only when no batch norm follows, which would remove it. The last layer
    has one when `output_bias`, whether or not batch norm follows, and is never followed by a ReLU.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [
            nn.Linear(before, after, bias=hidden == "none"),
            *_norm(hidden, after),
            nn.ReLU(inplace=True),
        ]
    layers += [nn.Linear(widths[-2], widths[-1], bias=output_bias), *_norm(output, widths[-1])]
    return nn.Sequential(*layers)


def _norm(norm: Norm, width: int) -> list[nn.Module]:
    return [] if norm == "none" else [nn.BatchNorm1d(width, affine=norm == "affine")]
