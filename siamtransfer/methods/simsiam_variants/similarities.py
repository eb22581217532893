"""Distances D(p, z) between predictions p[N,d] and targets z[N,d]: SimSiam's negative cosine, and others.

Every function is a mean over the batch, smallest where p agrees with z, in float32 or better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.distributed import collectives
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32, to_float32
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError

SimilarityName = Literal["cosine", "cross-entropy", "kl", "js", "mse", "huber", "sliced-wasserstein"]


@dataclass
class DistanceConfig:
    """A weighted sum of similarities for D(p, z), and their parameters (ours, but for the formulas)."""

    weights: dict[SimilarityName, float] = field(default_factory=dict)
    """Several similarities and their weights, as {cosine: 1, cross-entropy: 0.1}: the weighted sum takes the
    place of simsiam_variants.similarity."""
    learned: bool = False
    """Train the weights w, which start at those above: the loss is the sum of w L - log w over the
    similarities (Kendall et al., arXiv 1705.07115), each L shifted to be at least zero."""
    prediction_temperature: float = 1.0
    """Temperature of the prediction's softmax, where a similarity has one."""
    target_temperature: float = 1.0
    """Temperature of the target's softmax; below the prediction's it sharpens the target."""
    slices: int = 64
    """Random directions of the sliced Wasserstein distance."""

    def check(self) -> None:
        for name, weight in self.weights.items():
            above(f"simsiam_variants.distance.weights.{name}", weight, 0)
        above("simsiam_variants.distance.prediction_temperature", self.prediction_temperature, 0)
        above("simsiam_variants.distance.target_temperature", self.target_temperature, 0)
        at_least("simsiam_variants.distance.slices", self.slices, 1)
        if self.learned and not self.weights:
            raise UserError(
                "simsiam_variants.distance.learned trains the weights of simsiam_variants.distance.weights: "
                "name similarities there, as {cosine: 1, cross-entropy: 1}"
            )


class Distance(nn.Module):
    """D(p, z): the similarity `name`, or the weighted sum of similarities in `config`."""

    def __init__(self, name: SimilarityName, config: DistanceConfig):
        super().__init__()
        self.config, self.weights = config, config.weights or {name: 1.0}
        if config.learned:
            self.log_weights = nn.Parameter(torch.tensor(list(self.weights.values())).log())

    def forward(self, p: Tensor, z: Tensor) -> Tensor:
        """The mean over the batch of p[N,d] and its target z[N,d]."""
        p, z = to_float32(p), to_float32(z)
        with no_tf32(p):
            values = {name: self.measure(name, p, z) for name in self.weights}
        if not self.config.learned:
            return torch.stack([weight * values[name] for name, weight in self.weights.items()]).sum()
        from_zero = torch.stack([values[name] + (name == "cosine") for name in self.weights])
        return (self.log_weights.exp() * from_zero - self.log_weights).sum()

    def measure(self, name: SimilarityName, p: Tensor, z: Tensor) -> Tensor:
        """One similarity of p and z."""
        match name:
            case "cosine":
                return cosine(p, z)
            case "mse":
                return F.mse_loss(p, z)
            case "huber":
                return F.huber_loss(p, z)
            case "sliced-wasserstein":
                return sliced_wasserstein(p, z, self.config.slices)
        log_p = (p / self.config.prediction_temperature).log_softmax(dim=1)
        log_z = (z / self.config.target_temperature).log_softmax(dim=1)
        match name:
            case "cross-entropy":
                return -(log_z.exp() * log_p).sum(dim=1).mean()
            case "kl":
                return divergence(log_z, log_p)
            case "js":
                middle = torch.logaddexp(log_p, log_z) - math.log(2)
                return divergence(log_z, middle) / 2 + divergence(log_p, middle) / 2


def cosine(p: Tensor, z: Tensor) -> Tensor:
    """-cos(p, z), from -1 to 1: SimSiam's (equation 1)."""
    return -F.cosine_similarity(p, z, dim=1).mean()


def divergence(log_z: Tensor, log_p: Tensor) -> Tensor:
    """KL(z || p) of distributions over channels; the arguments are their logarithms [N,d]."""
    return (log_z.exp() * (log_z - log_p)).sum(dim=1).mean()


def sliced_wasserstein(p: Tensor, z: Tensor, slices: int) -> Tensor:
    """The squared 2-Wasserstein distance between the distribution of all p and that of all z, over the rows
    of all ranks (Rabin et al. 2011): the mean, over random directions, of the distance between their sorted
    projections on that direction.

    It compares distributions and not pairs, so it is useful only together with a similarity of pairs.
    """
    directions = collectives.broadcast(
        l2_normalize(torch.randn(slices, p.shape[1], device=p.device, dtype=p.dtype))
    )
    of_p, of_z = ((collectives.all_gather_with_grad(x) @ directions.T).sort(dim=0).values for x in (p, z))
    return F.mse_loss(of_p, of_z)
