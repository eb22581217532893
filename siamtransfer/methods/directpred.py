"""DirectPred (Tian, Chen and Ganguli, Understanding Self-Supervised Learning Dynamics without Contrastive
Pairs, arXiv 2102.06810) with its successors DirectSet and DirectCopy (arXiv 2110.04947).

BYOL with a linear predictor that is computed instead of trained: it has the eigenvectors of the correlation
matrix F of the embeddings, and its eigenvalues are a function of those of F.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed.sharding import local, share_like
from siamtransfer.methods.base import Method, Options, StepInfo, StepOutput
from siamtransfer.methods.parts.correlation import Correlation, spectral
from siamtransfer.methods.parts.ema import momentum_copy, move, rising
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.precision import no_tf32, to_float32
from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError


@dataclass
class DirectPredConfig(Options):
    """DirectPred's heads and rule; the defaults are those of its ImageNet runs, whose heads are BYOL's."""

    hidden: int = 4096
    """Hidden width of the projector (512 in the published code, for STL-10 and CIFAR-10)."""
    dim: int = 256
    """Width d of projections (128 in the published code)."""
    affine: bool = True
    """Affine parameters in the projector's batch norm (False in the published code)."""
    rule: Literal["directpred", "directset", "directcopy"] = "directpred"
    """How the predictor W follows from F = U diag(s) Uᵀ. directpred: U diag(√(s / max s) + ε) Uᵀ; directset:
    the same with the power alpha instead of the root; directcopy: F + ε I, without decomposition."""
    alpha: float = 0.5
    """The power of directset: 0.5 is directpred, 1 is directcopy with F scaled to norm 1."""
    epsilon: float = 0.1
    """ε, added to all eigenvalues; DirectSet and DirectCopy work best with 0.3."""
    epsilon_inside: bool = False
    """Add ε before taking the root or power."""
    rho: float = 0.3
    """Fraction of the old F that an update keeps; DirectSet and DirectCopy work best with 0.5."""
    freq: int = 1
    """Steps between two computations of W; in the steps between, its gradient trains it."""
    momentum: float = 0.996
    """Momentum of the target network."""
    momentum_schedule: Literal["constant", "cosine"] = "cosine"
    """Whether the momentum rises to 1 along a cosine, as BYOL's, or stays (the published code)."""
    symmetric: bool = True
    """Sum the loss over both directions, or use view 1 -> view 2 only."""

    def check(self, batch: int) -> None:
        for key in ("hidden", "dim", "freq"):
            at_least(f"directpred.{key}", getattr(self, key), 1)
        above("directpred.alpha", self.alpha, 0)
        within("directpred.rho", self.rho, 0, 1)
        within("directpred.momentum", self.momentum, 0, 1)
        if self.epsilon_inside and self.rule == "directcopy":
            raise UserError(
                "directpred.epsilon_inside concerns the root, and directcopy has none: set it to false, or "
                "choose another directpred.rule"
            )


class DirectPred(Method):
    """L = -2 cos(W z1, stop(z2')) - 2 cos(W z2, stop(z1')) with z = g(f(x)) and z' of the target network."""

    Config = DirectPredConfig
    config: DirectPredConfig
    recordable = True

    def __init__(self, backbone: Backbone, config: DirectPredConfig):
        super().__init__(backbone, config)
        features = backbone.dim
        self.projector = mlp(
            [features, config.hidden, config.dim],
            hidden="affine" if config.affine else "plain",
            hidden_bias=True,
        )
        self.predictor = nn.Linear(config.dim, config.dim, bias=False)
        self.target_backbone = momentum_copy(backbone)
        self.target_projector = momentum_copy(self.projector)
        self.correlation = Correlation(config.dim, config.rho)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S] -> loss in [-4, 4], or [-2, 2] when it is not symmetric."""
        x1, x2 = views
        z1, z2 = (to_float32(self.projector(self.backbone(x))) for x in (x1, x2))
        with torch.no_grad():
            t1, t2 = (to_float32(self.target_projector(self.target_backbone(x))) for x in (x1, x2))
        with no_tf32(z1):
            self.correlation(torch.cat([z1, z2]).detach())
            loss = -2 * F.cosine_similarity(self.predictor(z1), t2).mean()
            if self.config.symmetric:
                loss = loss - 2 * F.cosine_similarity(self.predictor(z2), t1).mean()
        return StepOutput(loss, [z1.detach(), z2.detach()])

    @torch.no_grad()
    def after_update(self, info: StepInfo) -> None:
        if info.step % self.config.freq == 0:
            weight = predictor_of(self.correlation.matrix, self.config)
            local(self.predictor.weight).copy_(local(share_like(weight, self.predictor.weight)))
        momentum = self.config.momentum
        if self.config.momentum_schedule == "cosine":
            momentum = rising(momentum, info.done)
        move(self.target_backbone, self.backbone, momentum)
        move(self.target_projector, self.projector, momentum)


def predictor_of(correlation: Tensor, config: DirectPredConfig) -> Tensor:
    """W[d,d], symmetric and positive, by the rule of `config` from F[d,d]."""
    if config.rule == "directcopy":
        return correlation + torch.full_like(correlation.diagonal(), config.epsilon).diag()
    power = 0.5 if config.rule == "directpred" else config.alpha
    return spectral(correlation, power, config.epsilon, inside=config.epsilon_inside)
