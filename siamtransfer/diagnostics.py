"""Is the representation alive? Numbers that notice collapse, and the watch that raises the alarm.

Notation: z[N, d] projections of a batch, n(z) its rows scaled to unit length.
"""

from __future__ import annotations

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


def view_cosine(z1: Tensor, z2: Tensor) -> float:
    """Mean cosine between the two projections of the same image."""
    return float(F.cosine_similarity(z1.float(), z2.float(), dim=1).mean())


def projection_health(z1: Tensor, z2: Tensor) -> dict[str, float]:
    """The monitors of two views' projections, each [N, d] (N over all ranks)."""
    return {
        "health/std": (output_std(z1) + output_std(z2)) / 2,
        "health/effective_rank": effective_rank(z1),
        "health/centre_norm": centre_norm(z1),
        "health/view_cosine": view_cosine(z1, z2),
    }


LIKELY_CAUSES = (
    "likely causes: a learning rate too high for this batch (optim.lr), batch norm that sees too few images "
    "or is not synchronised over ranks (optim.batch, optim.accumulate, hardware.sync_batch_norm), a predictor "
    "that is missing, fixed or decayed (simsiam.predictor, simsiam.predictor_rate), no stop-gradient "
    "(simsiam.stop_gradient), or views so weak that all images look alike (views.recipe)"
)


@dataclass
class CollapseWatch:
    """Raises an alarm when the projections have stayed collapsed for `patience` checks in a row.

    Collapsed is: output std below `min_std` of a healthy one, or an effective rank below `min_rank` (batch
    norm can keep the std up while all images share one line). A single bad check is not enough.
    """

    min_std: float = 0.2
    min_rank: float = 2.5
    patience: int = 3
    bad_checks: int = 0
    alarms: list[int] = field(default_factory=list)

    def check(self, step: int, health: dict[str, float]) -> str | None:
        """The alarm's text the first time that a collapse is certain, else None."""
        std, rank = health["health/std"], health["health/effective_rank"]
        if std >= self.min_std and rank >= self.min_rank:
            self.bad_checks = 0
            return None
        self.bad_checks += 1
        if self.bad_checks != self.patience:
            return None
        self.alarms.append(step)
        return (
            f"COLLAPSE at step {step}: output std x sqrt(d) is {std:.3f} (healthy is near 1) and the effective "
            f"rank {rank:.1f}, so nearly all images get one answer whatever the loss says; {LIKELY_CAUSES}"
        )
