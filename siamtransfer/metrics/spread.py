"""How far embeddings spread: numbers that show a collapse.

Legend: z[N, d] projections of a batch; n(z) its rows scaled to unit length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.metrics.unit_rows import unit_rows


def output_std(z: Tensor) -> float:
    """Mean over channels of the standard deviation of n(z), times sqrt(d) (SimSiam section 4.1).

    1 for an isotropic Gaussian, 0 when all rows are equal.
    """
    return float(unit_rows(z, torch.float32).std(dim=0).mean() * z.shape[1] ** 0.5)


def centre_norm(z: Tensor) -> float:
    """Length of the mean of n(z): 0 when the directions are balanced, 1 when all rows have the same one."""
    return float(unit_rows(z, torch.float32).mean(dim=0).norm())


def effective_rank(z: Tensor) -> float:
    """exp of the entropy of the singular values of n(z), divided by their sum (Roy and Vetterli 2007).

    From 1 (all rows on one line) to min(N, d). The rows are not centred.
    """
    z = unit_rows(z, torch.float64)
    gram = z @ z.T if z.shape[0] <= z.shape[1] else z.T @ z
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    fractions = singular / singular.sum().clamp_min(1e-300)
    return float(torch.exp(torch.special.entr(fractions).sum()))


def rank_share(rank: float, z: Tensor) -> float:
    """log(rank) / log(min(N, d)) for the effective rank of z[N, d]: from 0 for one line to 1.

    It is the entropy of the singular values, divided by the largest that this shape allows.
    """
    return math.log(rank) / math.log(min(z.shape)) if min(z.shape) > 1 else 1.0


def view_cosine(z1: Tensor, z2: Tensor) -> float:
    """Mean cosine of the two projections z1[N, d] and z2[N, d] of the same images."""
    return float(F.cosine_similarity(z1.float(), z2.float(), dim=1).mean())


def projection_health(z1: Tensor, z2: Tensor) -> dict[str, float]:
    """The numbers that training logs for the projections of two views, each [N, d] with N over all ranks.

    The effective rank and the norm of the centre are those of the first view.
    """
    rank = effective_rank(z1)
    return {
        "health/std": (output_std(z1) + output_std(z2)) / 2,
        "health/effective_rank": rank,
        "health/rank_share": rank_share(rank, z1),
        "health/centre_norm": centre_norm(z1),
        "health/view_cosine": view_cosine(z1, z2),
    }
