"""Barlow Twins (Zbontar et al., Self-Supervised Learning via Redundancy Reduction, arXiv 2103.03230).

Over a batch, each channel of a view's projection should be correlated with the same channel of the other
view's projection, and with no other channel. Gradients flow into both views; there are no negative pairs and
no second network.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.base import Method, Options, StepOutput
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.precision import no_tf32, to_float32
from siamtransfer.utils.checks import above, at_least


@dataclass
class BarlowTwinsConfig(Options):
    """Barlow Twins' projector and the weight of its second term; the defaults are the published code's."""

    hidden: int = 8192
    """Hidden width of the projector."""
    dim: int = 8192
    """Width d of projections; unlike other methods, this one gains from a large width."""
    projector_layers: int = 3
    """Layers of the projector."""
    redundancy: float = 0.0051
    """λ, weight of the correlations between different channels (0.005 in the paper)."""
    scale: float = 1.0
    """Factor of the loss: it matters with weight decay, and with update rules that clip (solo-learn: 0.1)."""

    def check(self, batch: int) -> None:
        at_least("barlow_twins.hidden", self.hidden, 1)
        at_least("barlow_twins.dim", self.dim, 1)
        at_least("barlow_twins.projector_layers", self.projector_layers, 1)
        at_least("barlow_twins.redundancy", self.redundancy, 0)
        above("barlow_twins.scale", self.scale, 0)


class BarlowTwins(Method):
    """L = Σ_i (C_ii - 1)² + λ Σ_i Σ_{j≠i} C_ij² with C, the correlation between the channels of z1
    and z2 over the batch of all ranks, z = g(f(x))."""

    Config = BarlowTwinsConfig
    config: BarlowTwinsConfig
    recordable = True

    def __init__(self, backbone: Backbone, config: BarlowTwinsConfig):
        super().__init__(backbone, config)
        features = backbone.dim
        hidden = [config.hidden] * (config.projector_layers - 1)
        self.projector = mlp([features, *hidden, config.dim], output_bias=False)
        self.norm = nn.BatchNorm1d(config.dim, affine=False)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S] -> loss, 0 when C is the identity."""
        z1, z2 = (to_float32(self.projector(self.backbone(x))) for x in views)
        with no_tf32(z1):
            c = self.norm(z1).T @ self.norm(z2) / (len(z1) * collectives.world_size())
            c = collectives.all_reduce_with_grad(c)
            diagonal = c.diagonal()
            invariance = (diagonal - 1).square().sum()
            redundancy = c.square().sum() - diagonal.square().sum()
            loss = self.config.scale * (invariance + self.config.redundancy * redundancy)
        return StepOutput(loss, [z1.detach(), z2.detach()])
