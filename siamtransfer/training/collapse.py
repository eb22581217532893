"""Is the representation alive? Numbers that notice collapse, and the watch that raises the alarm.

Notation: z[N, d] projections of a batch, n(z) its rows scaled to unit length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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


LIKELY_CAUSES = (
    "a learning rate too high for this batch (optim.lr)",
    "batch norm that sees too few images or is not synchronised over ranks (optim.batch, optim.accumulate, "
    "hardware.sync_batch_norm)",
    "views so weak that all images look alike (views.recipe)",
)


@dataclass
class CollapseWatch:
    """Raises an alarm when the projections have been collapsed in `patience` checks in a row, once until they
    have been healthy for as many.

    Collapsed is an output std below `min_std` or a rank share below `min_rank_share`; SwAV has its own, for
    its embeddings need not be centred (`Options.least_std`). Both are needed: batch
    norm before the output makes every channel vary within a batch of N whatever the network answers (one
    image of N that differs from all others leaves a std of 2 / sqrt(N)), so small batches show collapse in
    the rank and large ones in the std too. Measured, ResNet-18 of small width, on Fashion Scenes:

        N    d     healthy: std, rank, share        without stop-gradient, after 100 steps
        16   32    above 0.96, 8.2, 0.76            0.50 to 0.65, 1.2 to 3.1, below 0.41
        32   64    above 0.93, 10.6, 0.68           0.36 to 0.58, 1.3 to 4.8, below 0.46
        256  512   above 0.55, 13.7, 0.47           0.23 to 0.35, 3.4 to 11, below 0.44
    """

    min_std: float = 0.4
    min_rank_share: float = 0.42
    patience: int = 3
    bad_checks: int = 0
    good_checks: int = 0
    armed: bool = True
    alarms: list[int] = field(default_factory=list)

    def check(self, step: int, health: dict[str, float], causes: tuple[str, ...] = ()) -> str | None:
        """The alarm's text, with the `causes` that the method may have of its own, when a collapse has become
        certain, else None."""
        std, rank = health["health/std"], health["health/effective_rank"]
        if std >= self.min_std and health["health/rank_share"] >= self.min_rank_share:
            self.bad_checks, self.good_checks = 0, self.good_checks + 1
            self.armed |= self.good_checks >= self.patience
            return None
        self.bad_checks, self.good_checks = self.bad_checks + 1, 0
        if not self.armed or self.bad_checks < self.patience:
            return None
        self.armed = False
        self.alarms.append(step)
        return (
            f"COLLAPSE at step {step}: output std x sqrt(d) is {std:.3f} (healthy is near 1) and the "
            f"effective rank {rank:.1f}, so nearly all images get one answer whatever the loss says; "
            f"likely causes: {', or '.join((*LIKELY_CAUSES, *causes))}"
        )
