"""Principal components of patches as colours, the foreground by the first of them, and cosine similarity.

All maps are on the CPU.

Legend: C features, P patches, h and w of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.utils.errors import UserError

COLOURS = 3
TAILS = (0.01, 0.99)
"""Quantiles of a component that get the darkest and the brightest colour."""


class Components(NamedTuple):
    """The first components of a set of patches.

    Attributes:
        mean: float64[C].
        axes: float64[3, C], of length 1; the entry of the largest absolute value is positive.
        explained: float64[3], the shares of the variance.
    """

    mean: Tensor
    axes: Tensor
    explained: Tensor

    def project(self, features: Tensor) -> Tensor:
        """float64[3, h, w] of a map [C, h, w]."""
        centred = features.double() - self.mean[:, None, None]
        return torch.einsum("kc,chw->khw", self.axes, centred)


def fit_components(maps: Sequence[Tensor], chosen: Sequence[Tensor] | None = None) -> Components:
    """The components of all patches of maps[C, h, w], or of those that bool[h, w] of `chosen` marks, in
    float64.

    Raises:
        UserError: there are fewer than four patches or features, or all patches are equal.
    """
    rows = [features.double().flatten(1).T for features in maps]
    if chosen is not None:
        rows = [row[mark.flatten()] for row, mark in zip(rows, chosen, strict=True)]
    count, width = sum(map(len, rows)), rows[0].shape[1]
    if count <= COLOURS or width < COLOURS:
        raise UserError(
            f"{count} patches of {width} features have no three components: take more or larger images "
            "(--size), or another layer (--layers)"
        )
    mean = torch.stack([row.sum(dim=0) for row in rows]).sum(dim=0) / count
    covariance = torch.stack([(row - mean).T @ (row - mean) for row in rows]).sum(dim=0) / count
    variances, vectors = torch.linalg.eigh(covariance)
    total = variances.clamp_min(0).sum()
    if not bool(total > 0):
        raise UserError(
            "all patches have the same features, so there is nothing to show: the network is flat"
        )
    axes = vectors[:, -COLOURS:].flip(1).T
    signs = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return Components(mean, axes * signs, variances[-COLOURS:].flip(0) / total)


def foreground(maps: Sequence[Tensor], components: Components, *, invert: bool = False) -> list[Tensor]:
    """bool[h, w] of every map: the patches on one side of the mean on the first component, the side to which
    the smaller share of the patches at the border of the maps belongs (with `invert` the other one)."""
    positive = [components.project(features)[0] > 0 for features in maps]
    border = torch.cat([torch.cat([m[0], m[-1], m[1:-1, 0], m[1:-1, -1]]) for m in positive])
    inside_is_positive = bool(border.double().mean() <= 0.5)
    return [mark if inside_is_positive != invert else ~mark for mark in positive]


def colours(projections: Sequence[Tensor], chosen: Sequence[Tensor] | None = None) -> list[Tensor]:
    """uint8[3, h, w] of float64[3, h, w]: the TAILS of each component over all patches (or the marked ones)
    become 0 and 255, values beyond are clipped; patches that are not marked are black."""
    marks = chosen or [torch.ones_like(p[0], dtype=torch.bool) for p in projections]
    values = torch.cat([p[:, mark] for p, mark in zip(projections, marks, strict=True)], dim=1)
    low, high = torch.from_numpy(np.quantile(values.numpy(), TAILS, axis=1))[..., None, None]
    span = (high - low).clamp_min(torch.finfo(values.dtype).tiny)
    return [
        ((p - low) / span).clamp(0, 1).mul(255).round().byte() * mark
        for p, mark in zip(projections, marks, strict=True)
    ]


def patch_of_pixel(x: int, y: int, image: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(row, column) in a map of `grid` (h, w) of the pixel (x, y) of an image of (H, W).

    Raises:
        UserError: the pixel is outside the image.
    """
    height, width = image
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f"--patch {x} {y} is outside its image, which has {width} x {height} pixels")
    return int((y + 0.5) * grid[0] / height), int((x + 0.5) * grid[1] / width)


def similarity(maps: Sequence[Tensor], vector: Tensor) -> list[Tensor]:
    """The cosine of every patch of maps[C, h, w] with vector[C], float32[h, w] each."""
    return [
        functional.cosine_similarity(features.float(), vector.float()[:, None, None], dim=0)
        for features in maps
    ]
