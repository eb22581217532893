"""SimCLR (Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, arXiv
2002.05709).

Two views of an image should have similar projections, and different images of the batch, over all ranks,
dissimilar ones. Gradients flow into both views and into the negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.base import Method, Options, StepOutput
from siamtransfer.methods.parts.mixing import by_role, held, over_shares
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.norms import HeadNorm
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError


@dataclass
class SimCLRConfig(Options):
    """SimCLR's projector and temperature; the defaults are the paper's on ImageNet."""

    hidden: int | None = None
    """Hidden width of the projector; null: the backbone's."""
    dim: int = 128
    """Width d of projections."""
    projector_layers: int = 2
    """Layers of the projector."""
    output_norm: Literal["none", "scale", "affine"] = "scale"
    """The norm after the projector: none, with a scale but no shift (the authors' code), or with both."""
    projector_norm: HeadNorm = "batch"
    """Which norm the projector has: batch norm, layer norm, group norm, group norm with standardised weights,
    or none, which needs output_norm none."""
    temperature: float = 0.1
    """τ of the softmax (0.5 for CIFAR-10)."""

    def check(self, batch: int) -> None:
        at_least("simclr.hidden", self.hidden, 1)
        at_least("simclr.dim", self.dim, 1)
        at_least("simclr.projector_layers", self.projector_layers, 1)
        above("simclr.temperature", self.temperature, 0)
        if self.projector_norm == "none" and self.output_norm != "none":
            raise UserError(
                "simclr.projector_norm none leaves no norm in the projector, and simclr.output_norm is "
                f"{self.output_norm}: set simclr.output_norm none, too"
            )
        if self.projector_norm != "batch" and self.projector_layers == 1 and self.output_norm == "none":
            raise UserError(
                f"simclr.projector_norm {self.projector_norm} changes nothing: a projector of one layer with "
                "simclr.output_norm none has no norm; leave it out, or set simclr.projector_layers 2"
            )


class SimCLR(Method):
    """NT-Xent, the mean over all 2N views i with their partners j of
    -log exp(s_ij / τ) / Σ_{k≠i} exp(s_ik / τ), where s is the cosine between projections z = g(f(x))."""

    Config = SimCLRConfig
    config: SimCLRConfig
    mixes = True
    recordable = True

    def __init__(self, backbone: Backbone, config: SimCLRConfig):
        super().__init__(backbone, config)
        features = backbone.dim
        hidden = config.hidden or features
        self.projector = mlp(
            [features, *[hidden] * (config.projector_layers - 1), config.dim],
            output="none" if config.output_norm == "none" else "affine",
            output_bias=False,
            kind=config.projector_norm,
        )
        if config.output_norm == "scale":
            self.projector[-1].bias.requires_grad_(False)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S], and mixed ones after them (parts/mixing.py) -> loss, ln(2N - 1) when all
        projections are equal. Mixed views are anchors only, and take a second pass."""
        x = by_role(views)
        z1, z2 = z = [self.project(view) for view in x.plain]
        a1, a2 = [self.project(view) for view in x.online] if x.mixed else z
        with no_tf32(z1):
            first = self.contrast(a1, z2, z1, x.shares[0])
            loss = (first + self.contrast(a2, z1, z2, x.shares[1])) / 2
        return StepOutput(loss, [z1.detach(), z2.detach()])

    def project(self, x: Tensor) -> Tensor:
        """z[N,d] of unit length."""
        return l2_normalize(self.projector(self.backbone(x)))

    def contrast(
        self, anchors: Tensor, partners: Tensor, own: Tensor | None = None, share: Tensor | None = None
    ) -> Tensor:
        """The mean cross-entropy of anchors[N,d] against the vectors of all ranks but the anchor itself; the
        correct one is its row of partners[N,d]. All are unit vectors.

        `own` are the plain views that the anchors were mixed of, by default the anchors themselves. An anchor
        with the `share` [N] of its own image has two correct ones, and leaves out both views that it holds.
        """
        own = anchors if own is None else own
        candidates = torch.cat(
            [collectives.all_gather_with_grad(partners), collectives.all_gather_with_grad(own)]
        )
        logits = anchors @ candidates.T / self.config.temperature
        partner = collectives.local_rows(len(anchors), anchors.device)
        itself = held(partner + len(candidates) // 2, share).view(len(anchors), -1)
        logits = logits.scatter(1, itself, -torch.inf)
        if share is None:
            return F.cross_entropy(logits, partner)
        return over_shares(lambda one: F.cross_entropy(logits, one, reduction="none"), partner, share).mean()
