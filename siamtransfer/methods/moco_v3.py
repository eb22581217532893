"""MoCo v3 (Chen, Xie and He, An Empirical Study of Training Self-Supervised Vision Transformers, arXiv
2104.02057).

A prediction from one view should be more similar to the other view's projection by a slowly moving average of
the network than to the projections of all other images of the batch. There is no queue; batches are large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.base import Method, Options, StepInfo, StepOutput
from siamtransfer.methods.parts.ema import momentum_copy, move, rising
from siamtransfer.methods.parts.mixing import by_role, over_shares
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32
from siamtransfer.methods.parts.vit_init import initialise, vit_of
from siamtransfer.utils.checks import above, at_least, within


@dataclass
class MoCoV3Config(Options):
    """MoCo v3's heads and momentum; the defaults are those of ResNet-50 for 100 and 300 epochs. A ViT has
    projector_layers 3, predictor_norm true and temperature 0.2."""

    hidden: int = 4096
    """Hidden width of projector and predictor."""
    dim: int = 256
    """Width d of projections and predictions."""
    projector_layers: Literal[2, 3] = 2
    """Layers of the projector: 2 for ResNets, 3 for ViTs."""
    predictor_norm: bool = False
    """Batch norm without affine parameters after the predictor too, as for ViTs."""
    temperature: float = 1.0
    """τ of the softmax: 1 for ResNets, 0.2 for ViTs."""
    momentum: float = 0.99
    """The target network's momentum at the start; it rises to 1 along a cosine (0.996 for 1000 epochs)."""
    freeze_patches: bool = True
    """Keep a ViT's patch embedding at its random start, without which training is unstable (section 4)."""

    def check(self, batch: int) -> None:
        at_least("moco_v3.hidden", self.hidden, 1)
        at_least("moco_v3.dim", self.dim, 1)
        above("moco_v3.temperature", self.temperature, 0)
        within("moco_v3.momentum", self.momentum, 0, 1)


class MoCoV3(Method):
    """L = ctr(q1, k2) + ctr(q2, k1) with q = h(g(f(x))), k = g'(f'(x)) of the target network, and
    ctr(q, k) = -2τ log exp(q·k / τ) / Σ_batch exp(q·k' / τ) for unit vectors."""

    Config = MoCoV3Config
    config: MoCoV3Config
    mixes = True
    recordable = True

    def __init__(self, backbone: Backbone, config: MoCoV3Config):
        super().__init__(backbone, config)
        if (vit := vit_of(backbone)) is not None:
            initialise(vit)
            vit.patch_embed.requires_grad_(not config.freeze_patches)
        features, hidden, d = backbone.dim, config.hidden, config.dim
        self.projector = mlp(
            [features, *[hidden] * (config.projector_layers - 1), d], output="plain", output_bias=False
        )
        self.predictor = mlp(
            [d, hidden, d], output="plain" if config.predictor_norm else "none", output_bias=False
        )
        self.target_backbone = momentum_copy(backbone)
        self.target_projector = momentum_copy(self.projector)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S], and mixed ones after them (parts/mixing.py) -> loss, 4τ ln N when all
        similarities are equal."""
        x = by_role(views)
        z1, z2 = (self.projector(self.backbone(view)) for view in x.online)
        q1, q2 = l2_normalize(self.predictor(z1)), l2_normalize(self.predictor(z2))
        with torch.no_grad():
            k1, k2 = (l2_normalize(self.target_projector(self.target_backbone(view))) for view in x.plain)
        with no_tf32(q1):
            loss = self.contrast(q1, k2, x.shares[0]) + self.contrast(q2, k1, x.shares[1])
        return StepOutput(loss, [z1.detach(), z2.detach()])

    def contrast(self, q: Tensor, k: Tensor, share: Tensor | None = None) -> Tensor:
        """ctr(q, k), the mean over this rank's q[N,d], each among the k of all ranks; a mixed q's two keys
        have the shares [N] and the rest."""
        temperature = self.config.temperature
        logits = q @ collectives.all_gather(k).T / temperature
        key = collectives.local_rows(len(q), q.device)
        reduction = "mean" if share is None else "none"
        losses = over_shares(lambda own: F.cross_entropy(logits, own, reduction=reduction), key, share)
        return 2 * temperature * losses.mean()

    def before_forward(self, info: StepInfo) -> None:
        momentum = rising(self.config.momentum, info.done)
        move(self.target_backbone, self.backbone, momentum)
        move(self.target_projector, self.projector, momentum)
