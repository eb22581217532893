"""The principal axes of features, from a copy in float64 where that is small and from sums over chunks where
it is not.

Legend: N samples, D features, R <= D axes along which they vary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from siamtransfer.evaluation.linear.rows import Rows
from siamtransfer.utils.errors import UserError

NEGLIGIBLE = 1e-12
"""Fraction of the largest variance below which an axis holds only rounding errors; and of its mean below
which a feature's deviation does."""


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """The change of variables (h - mean) / scale @ axes, in float64: `mean`[D], `scale`[D], `axes`[D, R], and
    the `variances`[R] along the axes."""

    mean: Tensor
    scale: Tensor
    axes: Tensor
    variances: Tensor

    def unrotate(self, weight: Tensor) -> Tensor:
        """float64[K, D]: weights of (h - mean) / scale, from weight[K, R] of the rotated features."""
        return weight.double() @ self.axes.T


def rotate_copy(rows: Rows, standardise: bool) -> tuple[PrincipalAxes, Tensor]:
    """The axes, and the rotated features float64[N, R]; at most four float64 copies of the features are held.

    Raises:
        UserError: a feature is not finite.
    """
    h = rows.part(slice(None)).double()
    _require_finite(h)
    mean = h.mean(dim=0)
    h = h - mean
    scale = _scale(h.square().mean(dim=0).sqrt(), mean, standardise)
    axes, variances = _decompose_copy(h / scale)
    return PrincipalAxes(mean, scale, axes, variances), h / scale @ axes


def stream_axes(rows: Rows, standardise: bool) -> PrincipalAxes:
    """The axes by two passes over the rows, one for the mean and one for the covariance of what is centred; a
    chunk and float64[D, D] are held.

    Raises:
        UserError: a feature is not finite.
    """
    total = torch.zeros(rows.dim, dtype=torch.float64, device=rows.device)
    for part in rows.parts(0):
        h = rows.part(part).double()
        _require_finite(h)
        total += h.sum(dim=0)
    mean = total / len(rows)
    covariance = torch.zeros(rows.dim, rows.dim, dtype=torch.float64, device=rows.device)
    for part in rows.parts(0):
        h = rows.part(part) - mean
        covariance.addmm_(h.T, h)
    covariance /= len(rows)
    scale = _scale(covariance.diagonal().sqrt(), mean, standardise)
    variances, axes = torch.linalg.eigh(covariance.div_(scale).div_(scale[:, None]))
    kept = variances > NEGLIGIBLE * variances[-1]
    return PrincipalAxes(mean, scale, axes[:, kept], variances[kept])


def _scale(deviation: Tensor, mean: Tensor, standardise: bool) -> Tensor:
    """What the features are divided by: their deviations, and 1 for features that do not vary."""
    varies = deviation > NEGLIGIBLE * mean.abs()
    return torch.where(varies, deviation, 1) if standardise else torch.ones_like(deviation)


def _decompose_copy(h: Tensor) -> tuple[Tensor, Tensor]:
    """(axes[D, R], variances[R]) of centred features[N, D], without those that do not vary."""
    n, d = h.shape
    if n >= d:
        variances, axes = torch.linalg.eigh(h.T @ h / n)
        kept = variances > NEGLIGIBLE * variances[-1]
        return axes[:, kept], variances[kept]
    variances, sides = torch.linalg.eigh(h @ h.T / n)
    kept = variances > NEGLIGIBLE * variances[-1]
    return h.T @ sides[:, kept] / (n * variances[kept]).sqrt(), variances[kept]


def _require_finite(h: Tensor) -> None:
    if not bool(torch.isfinite(h).all()):
        raise UserError("the features hold values that are not finite, so nothing can be fitted to them")
