"""VICReg (Bardes, Ponce and LeCun, Variance-Invariance-Covariance Regularization, arXiv 2105.04906).

Two views of an image should have the same embedding (invariance), while over a batch every channel keeps
varying (variance) and no two channels vary together (covariance). Gradients flow into both views.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.base import Method, Options, StepOutput
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.precision import no_tf32, to_float32
from siamtransfer.utils.checks import at_least

EPSILON = 1e-4  # added to variances before the root


@dataclass
class VICRegConfig(Options):
    """VICReg's expander and the weights of its three terms; the defaults are the published code's."""

    hidden: int = 8192
    """Hidden width of the projector; the paper calls it expander."""
    dim: int = 8192
    """Width d of embeddings."""
    projector_layers: int = 3
    """Layers of the projector."""
    invariance: float = 25.0
    """λ, weight of the distance between views: squared, the mean over channels (the paper has their sum)."""
    variance: float = 25.0
    """μ, weight of the hinge on each channel's standard deviation."""
    covariance: float = 1.0
    """ν, weight of the squared covariances between channels."""

    def check(self, batch: int) -> None:
        at_least("vicreg.hidden", self.hidden, 1)
        at_least("vicreg.dim", self.dim, 2)
        at_least("vicreg.projector_layers", self.projector_layers, 1)
        for name in ("invariance", "variance", "covariance"):
            at_least(f"vicreg.{name}", getattr(self, name), 0)


class VICReg(Method):
    """L = λ s(z1, z2) + μ (v(z1) + v(z2)) / 2 + ν (c(z1) + c(z2)) with z = g(f(x))."""

    Config = VICRegConfig
    config: VICRegConfig
    recordable = True

    def __init__(self, backbone: Backbone, config: VICRegConfig):
        super().__init__(backbone, config)
        features = backbone.dim
        hidden = [config.hidden] * (config.projector_layers - 1)
        self.projector = mlp([features, *hidden, config.dim], hidden_bias=True, output_bias=False)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S] -> loss, 0.99 μ when all embeddings are equal."""
        z1, z2 = (to_float32(self.projector(self.backbone(x))) for x in views)
        with no_tf32(z1):
            loss = self.config.invariance * F.mse_loss(z1, z2)
            for z in (collectives.all_gather_with_grad(z1), collectives.all_gather_with_grad(z2)):
                loss = loss + self.config.variance * variance(z) / 2 + self.config.covariance * covariance(z)
        return StepOutput(loss, [z1.detach(), z2.detach()])


def variance(z: Tensor) -> Tensor:
    """v(z), the mean over channels of max(0, 1 - √(Var z_j + ε)), for z[N,d] of all ranks."""
    return (1 - (z.var(dim=0) + EPSILON).sqrt()).relu().mean()


def covariance(z: Tensor) -> Tensor:
    """c(z) = Σ_i Σ_{j≠i} Cov(z)_ij² / d for z[N,d] of all ranks."""
    n, d = z.shape
    z = z - z.mean(dim=0)
    cov = z.T @ z / (n - 1)
    return (cov.square().sum() - cov.diagonal().square().sum()) / d
