"""An information bottleneck: the predictor sees a random projection around z, and pays for what z tells.

With features h = f(x) and projections z = g(h), channel by channel,

    s = z + σ ε,  ε ~ N(0, 1),  σ = σ_0 exp(W h + b),  p = h(s)
    L = D(p, stop(z')) + β KL(N(z, σ²) || N(0, 1)),  KL = ½ Σ_c (z_c² + σ_c² - 1 - ln σ_c²)

(deep variational information bottleneck, Alemi et al., arXiv 1612.00410; ours for Siamese networks). W and b
start at zero. Targets are the means z, so that noise enters a pair on one side. For σ_0 → 0 and β = 0 the
loss is SimSiam's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from siamtransfer.methods.parts.precision import to_float32
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError


@dataclass
class BottleneckConfig:
    """An information bottleneck before the predictor (ours): it sees s ~ N(z, σ²), with a σ that is learned
    for each image and channel."""

    deviation: float | None = None
    """Standard deviation σ of s at the start; batch norm after the projector gives z one of 1. null: no
    bottleneck."""
    weight: float = 0.0
    """Weight β of the information: the mean over images of KL(N(z, σ²) || N(0, 1)), summed over channels, in
    nats."""

    def check(self) -> None:
        above("simsiam_variants.bottleneck.deviation", self.deviation, 0)
        at_least("simsiam_variants.bottleneck.weight", self.weight, 0)
        if self.weight and self.deviation is None:
            raise UserError(
                "simsiam_variants.bottleneck.weight changes nothing without a bottleneck: set "
                "simsiam_variants.bottleneck.deviation, as to 0.5, or leave weight out"
            )


class Bottleneck(nn.Module):
    """Draws s around z, with the deviations of a linear layer of features."""

    def __init__(self, width: int, dim: int, config: BottleneckConfig):
        super().__init__()
        assert config.deviation is not None
        self.start, self.weight = math.log(config.deviation), config.weight
        self.log_deviation = nn.Linear(width, dim)
        nn.init.zeros_(self.log_deviation.weight)
        nn.init.zeros_(self.log_deviation.bias)

    def forward(self, z: list[Tensor], h: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """s[N,d] for the projections z[N,d] and features h[N,D] of every view, and two numbers:
        `information`, the KL in nats, whose gradient the loss takes, and `deviation`, the mean of σ."""
        drawn, nats, deviations = [], [], []
        for mean, features in zip(z, h, strict=True):
            mean = to_float32(mean)
            log_sigma = self.start + to_float32(self.log_deviation(features))
            sigma = log_sigma.exp()
            drawn.append(mean + sigma * torch.randn_like(mean))
            nats.append((mean.square() + sigma.square() - 1 - 2 * log_sigma).sum(dim=1).mean() / 2)
            deviations.append(sigma.detach().mean())
        return drawn, {
            "information": torch.stack(nats).mean(),
            "deviation": torch.stack(deviations).mean(),
        }
