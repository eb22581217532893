"""BYOL (Grill et al., Bootstrap Your Own Latent, arXiv 2006.07733).

The online network predicts from a view the target network's projection of the other view. The target network
is a slowly moving average of the online network. There are no negative pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.methods.base import Method, Options, StepInfo, StepOutput
from siamtransfer.methods.parts.ema import momentum_copy, move, rising
from siamtransfer.methods.parts.mixing import by_role, over_shares
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.norms import HeadNorm
from siamtransfer.methods.parts.precision import to_float32
from siamtransfer.utils.checks import at_least, within


@dataclass
class BYOLConfig(Options):
    """BYOL's heads and momentum; the defaults are the paper's for 1000 epochs on ImageNet. Norms without
    batch statistics are those of arXiv 2010.10241; backbone.norm is the encoder's."""

    hidden: int = 4096
    """Hidden width of projector and predictor."""
    dim: int = 256
    """Width d of projections and predictions."""
    projector_layers: Literal[2, 3] = 2
    """Layers of the projector; 3 is that of the comparison in arXiv 2112.05141."""
    hidden_bias: bool = True
    """Biases in layers before batch norm too, where they have no effect; some code bases have none."""
    projector_norm: HeadNorm = "batch"
    """Norm in the projector: batch norm, layer norm, group norm, group norm with standardised weights, or
    none."""
    predictor_norm: HeadNorm = "batch"
    """Norm in the predictor, likewise."""
    momentum: float = 0.996
    """The target network's momentum at the start; it rises to 1 along a cosine (0.99 for 300 epochs)."""

    collapse_causes = ("a target network that moves as fast as the online network (byol.momentum)",)

    def check(self, batch: int) -> None:
        at_least("byol.hidden", self.hidden, 1)
        at_least("byol.dim", self.dim, 1)
        within("byol.momentum", self.momentum, 0, 1)


class BYOL(Method):
    """L = |n(p1) - n(z2')|² + |n(p2) - n(z1')|² with p = h(g(f(x))), z' = g'(f'(x)) of the target network,
    and n(·) scaling to unit length."""

    Config = BYOLConfig
    config: BYOLConfig
    mixes = True
    recordable = True

    def __init__(self, backbone: Backbone, config: BYOLConfig):
        super().__init__(backbone, config)
        features, hidden, d = backbone.dim, config.hidden, config.dim
        bias = config.hidden_bias
        widths = [features, *[hidden] * (config.projector_layers - 1), d]
        self.projector = mlp(widths, hidden_bias=bias, kind=config.projector_norm)
        self.predictor = mlp([d, hidden, d], hidden_bias=bias, kind=config.predictor_norm)
        self.target_backbone = momentum_copy(backbone)
        self.target_projector = momentum_copy(self.projector)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S], and mixed ones after them (parts/mixing.py) -> loss in [0, 8]."""
        x = by_role(views)
        z1, z2 = (self.projector(self.backbone(view)) for view in x.online)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        with torch.no_grad():
            t1, t2 = (self.target_projector(self.target_backbone(view)) for view in x.plain)
        loss = distance(p1, t2, x.shares[0]) + distance(p2, t1, x.shares[1])
        return StepOutput(loss, [z1.detach(), z2.detach()])

    def after_update(self, info: StepInfo) -> None:
        momentum = rising(self.config.momentum, info.done)
        move(self.target_backbone, self.backbone, momentum)
        move(self.target_projector, self.projector, momentum)


def distance(p: Tensor, z: Tensor, share: Tensor | None = None) -> Tensor:
    """The mean of |n(p) - n(z)|² = 2 - 2 cos(p, z) over the rows of p[N,d] and z[N,d], for mixed rows with
    the shares [N] of their own z."""
    p = to_float32(p)
    cosines = over_shares(lambda t: F.cosine_similarity(p, t, dim=1), to_float32(z), share)
    return 2 - 2 * cosines.mean()
