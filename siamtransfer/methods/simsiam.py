"""SimSiam (Chen and He, Exploring Simple Siamese Representation Learning, arXiv 2011.10566).

Two views of an image go through one network. From each view's projection a small predictor has to predict the
other view's projection, which counts as a constant (stop-gradient). No negative pairs, no momentum encoder.
Other heads, similarities, targets and extra losses are in methods/simsiam_variants/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.methods.base import Method, Options, ParameterGroup, StepOutput, trainable
from siamtransfer.methods.parts.mixing import by_role, over_shares
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.precision import no_tf32, to_float32
from siamtransfer.utils.checks import at_least


@dataclass
class SimSiamConfig(Options):
    """SimSiam's heads and learning rates; the defaults are the paper's."""

    dim: int = 2048
    """Width d of projections and predictions."""
    projector_layers: Literal[2, 3] = 3
    """Layers of the projector: 3 on ImageNet, 2 on CIFAR-10 (appendix D)."""
    predictor_hidden: int | None = None
    """Hidden width of the predictor; null is the paper's bottleneck, d/4."""
    predictor_lr: Literal["constant", "decayed"] = "constant"
    """Learning rate of the predictor: constant works a little better than decayed (table 1c)."""
    predictor_lr_scale: float = 1.0
    """The predictor's learning rate in units of the encoder's initial one. Above 1 the predictor keeps up
    with a fast-changing encoder (Tian et al., arXiv 2102.06810), as short runs need; the paper has 1."""
    stop_gradient: bool = True
    """False lets the gradient into the target as well, and the network collapses (section 4.1)."""
    symmetric: bool = True
    """Average the loss over both directions, or use view 1 -> view 2 only (section 4.6)."""

    section: ClassVar[str] = "simsiam"
    collapse_causes = (
        "a decayed predictor (simsiam.predictor_lr)",
        "no stop-gradient (simsiam.stop_gradient)",
    )

    def check(self, batch: int) -> None:
        at_least(f"{self.section}.dim", self.dim, 1)
        at_least(f"{self.section}.predictor_hidden", self.predictor_hidden, 1)
        at_least(f"{self.section}.predictor_lr_scale", self.predictor_lr_scale, 0)


class SimSiam(Method):
    """L = ½ D(p1, stop(z2)) + ½ D(p2, stop(z1)) with z = g(f(x)), p = h(z) and D(p, z) = -cos(p, z)."""

    Config = SimSiamConfig
    config: SimSiamConfig
    mixes = True
    recordable = True

    def __init__(self, backbone: Backbone, config: SimSiamConfig):
        super().__init__(backbone, config)
        d = config.dim
        self.projector = mlp([backbone.dim] * config.projector_layers + [d], output="plain")
        self.projector[-2].bias.requires_grad_(False)  # no effect before batch norm; frozen as published
        self.predictor: nn.Module = mlp([d, config.predictor_hidden or max(1, d // 4), d])

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S], and mixed ones after them (parts/mixing.py) -> loss in [-1, 1]; -1 where
        predictions and projections agree. Targets of mixed views take a second pass, of the plain views."""
        x = by_role(views)
        z1, z2 = z = [self.projector(self.backbone(view)) for view in x.online]
        p1, p2 = self.predictor(z1), self.predictor(z2)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.stop_gradient):
            own = [self.projector(self.backbone(view)) for view in x.plain] if x.mixed else z
        t1, t2 = (t.detach() if self.config.stop_gradient else t for t in own)
        loss = distance(p1, t2, x.shares[0])
        if self.config.symmetric:
            loss = (loss + distance(p2, t1, x.shares[1])) / 2
        return StepOutput(loss, [z1.detach(), z2.detach()])

    def groups(self) -> list[ParameterGroup]:
        constant, scale = self.config.predictor_lr == "constant", self.config.predictor_lr_scale
        return [
            ParameterGroup("encoder", trainable(self.backbone) + trainable(self.projector)),
            ParameterGroup("predictor", trainable(self.predictor), constant, scale),
        ]


def distance(p: Tensor, z: Tensor, share: Tensor | None = None) -> Tensor:
    """D(p, z), the mean over the rows of p[N,d] and z[N,d], for mixed rows with the shares [N] of their
    own z."""
    with no_tf32(p):
        p = to_float32(p)
        return -over_shares(lambda t: F.cosine_similarity(p, t, dim=1), to_float32(z), share).mean()
