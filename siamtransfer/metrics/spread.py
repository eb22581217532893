"""How far projections spread: numbers that notice collapse.

Notation: z[N, d] projections of a batch, n(z) its rows scaled to unit length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def output_std(z: Tensor) -> float:
    """Mean over channels of the standard deviation of n(z), times sqrt(d) (SimSiam section 4.1).

    1 for an isotropic Gaussian, 0 when every row is the same.
    """
    return float(F.normalize(z.float(), dim=1).std(dim=0).mean() * z.shape[1] ** 0.5)


def centre_norm(z: Tensor) -> float:
    """Length of the mean of n(z): 0 when directions balance, 1 when all rows point one way."""
    return float(F.normalize(z.float(), dim=1).mean(dim=0).norm())


def effective_rank(z: Tensor) -> float:
    """exp of the entropy of the singular values of n(z), as shares of their sum (Roy and Vetterli 2007).

    Between 1 (all rows on one line) and min(N, d). Uncentred.
    """
    z = F.normalize(z.double(), dim=1)
    gram = z @ z.T if z.shape[0] <= z.shape[1] else z.T @ z
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(1e-300)
    return float(torch.exp(torch.special.entr(share).sum()))


def rank_share(rank: float, z: Tensor) -> float:
    """The effective rank of z[N, d] on a scale from 0 (one line) to 1 (all min(N, d) directions alike), by
    its logarithm: the share of the largest entropy that singular values of this shape can have."""
    return math.log(rank) / math.log(min(z.shape)) if min(z.shape) > 1 else 1.0


def view_cosine(z1: Tensor, z2: Tensor) -> float:
    """Mean cosine between the two projections of the same image."""
    return float(F.cosine_similarity(z1.float(), z2.float(), dim=1).mean())


def projection_health(z1: Tensor, z2: Tensor) -> dict[str, float]:
    """The monitors of two views' projections, each [N, d] (N over all ranks)."""
    rank = effective_rank(z1)
    return {
        "health/std": (output_std(z1) + output_std(z2)) / 2,
        "health/effective_rank": rank,
        "health/rank_share": rank_share(rank, z1),
        "health/centre_norm": centre_norm(z1),
        "health/view_cosine": view_cosine(z1, z2),
    }
