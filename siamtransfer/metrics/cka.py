"""Linear centred kernel alignment: how similar two sets of features of the same images are.

Kornblith et al., Similarity of Neural Network Representations Revisited, arXiv 1905.00414, section 3.

Legend: x[N, D], y[N, E] features of the same N images, centred over the images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamtransfer.utils.errors import UserError


def linear_cka(x: Tensor, y: Tensor) -> float:
    """|yᵀx|² / (|xᵀx| |yᵀy|) with Frobenius norms, in float64; from 0 to 1.

    1 for features that are equal up to a rotation, a reflection, one factor and one shift. It does not vanish
    for unrelated features of few images: with N images of independent Gaussian features of D >= N numbers it
    is near 1.

    Raises:
        UserError: the numbers of images differ or are below 2, or all features of a set are equal.
    """
    if len(x) != len(y) or len(x) < 2:
        raise UserError(f"linear CKA compares features of the same images, not of {len(x)} and {len(y)}")
    x, y = (features.double() - features.double().mean(dim=0) for features in (x, y))
    if len(x) < max(x.shape[1], y.shape[1]):  # the same numbers from the smaller products
        of_x, of_y = x @ x.T, y @ y.T
        cross, own = (of_x * of_y).sum(), of_x.norm() * of_y.norm()
    else:
        cross, own = (y.T @ x).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    if not bool(own > 0):
        raise UserError("linear CKA is not defined where all images have the same features")
    return float(torch.clamp(cross / own, max=1.0))
