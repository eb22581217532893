"""DINOv2's linear layer from patches to bins of depth (arXiv 2304.07193, section 7.4), and its loss.

The bins lie uniformly between the ends of the range. Their logits become weights by a rectifier, 0.1 more,
and division by the sum ("linear normalisation", AdaBins, arXiv 2011.14141); the depth is the weighted mean
of the bins. The loss is the scale-invariant logarithmic one of Eigen et al. (arXiv 1406.2283) with a root.
Sources: dinov2/eval/depth/models of facebookresearch/dinov2 (linear_head.py, decode_head.py, sigloss.py).

Legend: b images, D features, h and w cells of a map, u the factor of enlargement, K bins, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.metrics.depth import DepthRange

FLOOR = 0.1
"""Added to the rectified logits, so that no bin loses its gradient for ever."""
MEAN_WEIGHT = 0.15
"""Of the squared mean of the logarithmic error, beside its variance."""
LOG_EPSILON = 0.001
"""Metres added before a logarithm."""


class BinsHead(nn.Module):
    """maps float[b, D, h, w] -> depths float32[b, u h, u w] in metres.

    The layer is applied before the enlargement and not after it, which is the same, for it is linear at every
    cell and the weights of the interpolation sum to one, and needs far less memory.
    """

    def __init__(self, dim: int, bins: int, depths: DepthRange, upsample: int):
        super().__init__()
        self.layer = nn.Conv2d(dim, bins, 1)
        self.upsample = upsample
        self.centres: Tensor
        self.register_buffer("centres", torch.linspace(depths.low, depths.high, bins))

    def forward(self, maps: Tensor) -> Tensor:
        logits = self.layer(maps.float())
        if self.upsample > 1:
            logits = functional.interpolate(
                logits, scale_factor=self.upsample, mode="bilinear", align_corners=False
            )
        return self.expected(logits)

    def expected(self, logits: Tensor) -> Tensor:
        """The depths float32[b, h, w] of logits[b, K, h, w]."""
        weights = logits.relu() + FLOOR
        return torch.einsum("bkhw,k->bhw", weights, self.centres) / weights.sum(dim=1)


@dataclass
class BinsProbe:
    """A trained head (DepthProbe)."""

    head: BinsHead
    protocol: dict[str, Any] = field(default_factory=dict)
    name: str = "bins"

    def depth(self, features: Tensor) -> Tensor:
        """float32[u h, u w] in metres of features float32[D, h, w]."""
        with torch.inference_mode():
            result: Tensor = self.head(features[None])[0]
        return result


def scale_invariant_loss(
    predicted: Tensor, truth: Tensor, counted: Tensor, *, warm_up: bool = False
) -> Tensor:
    """sqrt(var(g) + 0.15 mean(g)^2) over the pixels of [b, H, W] that are counted, with g the difference of
    the logarithms and the unbiased variance; in the warm-up without the variance. 0 where fewer than two
    are counted.
    """
    p, t = predicted[counted], truth[counted]
    if len(t) < 2:
        return predicted.sum() * 0
    g = (p + LOG_EPSILON).log() - (t + LOG_EPSILON).log()
    spread = 0 if warm_up else g.var()
    return (spread + MEAN_WEIGHT * g.mean().square()).sqrt()
