"""UniGrad (Tao et al., Exploring the Equivalence of Siamese Self-Supervised Learning via A Unified Gradient
Framework, arXiv 2112.05141), and the gradients of the families that it unifies, by an option each.

The method is defined by a gradient: an embedding is pulled to the other view's momentum embedding and pushed
along the correlation matrix of all embeddings. The loss is the product of the embedding and this gradient,
which counts as a constant; so autograd passes the gradient on into the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.base import Method, Options, StepInfo, StepOutput
from siamtransfer.methods.parts import unified_gradient as unified
from siamtransfer.methods.parts.correlation import Correlation, spectral
from siamtransfer.methods.parts.ema import momentum_copy, move, rising
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32, to_float32
from siamtransfer.methods.parts.unified_gradient import Gradient
from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError

Pair = tuple[Tensor, Tensor]
"""Embeddings [N,d] of view 1 and of view 2."""


@dataclass
class UniGradConfig(Options):
    """UniGrad's heads and options; defaults are the paper's, other values its comparisons (section 4)."""

    hidden: int = 2048
    """Width of the projector's two hidden layers."""
    dim: int = 2048
    """Width d of projections."""
    negative: Literal["unigrad", "contrastive", "asymmetric", "barlow-twins", "vicreg"] = "unigrad"
    """The family of the gradient: UniGrad's own, the contrastive family's (MoCo, SimCLR), the asymmetric
    family's (BYOL and SimSiam, with DirectPred's predictor), or a decorrelating loss's, Barlow Twins' or
    VICReg's."""
    target: Literal["momentum", "stop-gradient", "momentum-positive"] = "momentum"
    """The network of the other branch: a momentum encoder, the encoder itself without gradient, or a momentum
    encoder in the positive part and the encoder itself in the negative part."""
    balance: float | None = None
    """λ, the weight of the negative part. null is the published one: 100 for unigrad, 1 for contrastive,
    a value for each row for asymmetric, 50 for barlow-twins, that of the weights 25, 25, 1 for vicreg."""
    plain_positive: bool = False
    """Pull to the target itself: the identity replaces DirectPred's predictor, or Barlow Twins' matrix A
    (which the published code leaves out)."""
    drop_bracket: bool = False
    """Leave out the last bracket of VICReg's gradient and the centring, which makes it UniGrad's with the F
    of one batch."""
    normalise: Literal["l2", "batch", "none"] = "l2"
    """What turns a projection into an embedding: unit length, batch norm (as in Barlow Twins' loss), or
    nothing (as in VICReg's)."""
    rho: float = 0.99
    """Fraction of the old F that an update keeps."""
    momentum: float = 0.996
    """The target's momentum at the start; it rises to 1 along a cosine."""
    temperature: float = 0.2
    """Temperature τ of the contrastive gradient."""
    epsilon: float = 0.3
    """DirectPred's ε in the asymmetric gradient."""

    def check(self, batch: int) -> None:
        at_least("unigrad.hidden", self.hidden, 1)
        at_least("unigrad.dim", self.dim, 1)
        above("unigrad.balance", self.balance, 0)
        above("unigrad.temperature", self.temperature, 0)
        above("unigrad.epsilon", self.epsilon, 0)
        within("unigrad.rho", self.rho, 0, 1)
        within("unigrad.momentum", self.momentum, 0, 1)
        for key, owners in (
            ("plain_positive", ("asymmetric", "barlow-twins")),
            ("drop_bracket", ("vicreg",)),
        ):
            if getattr(self, key) and self.negative not in owners:
                raise UserError(
                    f"unigrad.{key} changes nothing in the gradient of {self.negative}: set it to false, or "
                    f"unigrad.negative to {' or '.join(owners)}"
                )


class UniGrad(Method):
    """L = ½ mean stop(g1)·u1 + ½ mean stop(g2)·u2 with g1 = -u2' + λ F u1 and g2 = -u1' + λ F u2, unit
    vectors u = n(g(f(x))), u' of the momentum encoder, and F the correlation of u', this batch included."""

    Config = UniGradConfig
    config: UniGradConfig

    def __init__(self, backbone: Backbone, config: UniGradConfig):
        super().__init__(backbone, config)
        features = backbone.dim
        batch_norm = config.normalise == "batch"
        self.projector = mlp(
            [features, config.hidden, config.hidden, config.dim],
            output="plain" if batch_norm else "none",
            output_bias=not batch_norm,
        )
        if config.target != "stop-gradient":
            self.target_backbone = momentum_copy(backbone)
            self.target_projector = momentum_copy(self.projector)
        if config.negative in ("unigrad", "asymmetric"):
            self.correlation = Correlation(config.dim, config.rho)
        self.recordable = config.negative != "asymmetric"  # whose eigenvectors make the host wait

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S] -> a loss that defines the gradient; its value has little meaning."""
        z1, z2 = (self.projector(self.backbone(x)) for x in views)
        u = self.embed(z1), self.embed(z2)
        targets, negatives = self.references(views, u)
        with no_tf32(z1):
            g = self.gradients(u, targets, negatives)
        loss = (g[0] * u[0]).sum(dim=1).mean() / 2 + (g[1] * u[1]).sum(dim=1).mean() / 2
        return StepOutput(loss, [z1.detach(), z2.detach()])

    def references(self, views: list[Tensor], u: Pair) -> tuple[Pair, Pair]:
        """The targets of the positive part and those of the negative part, for embeddings `u` of `views`."""
        online = u[0].detach(), u[1].detach()
        if self.config.target == "stop-gradient":
            return online, online
        targets = self.target(views[0]), self.target(views[1])
        return targets, targets if self.config.target == "momentum" else online

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        """The momentum encoder's embeddings [N,d] of a view."""
        return self.embed(self.target_projector(self.target_backbone(x)))

    def embed(self, z: Tensor) -> Tensor:
        """u[N,d] of projections; with normalise = batch, batch norm is the projector's last layer."""
        return l2_normalize(z) if self.config.normalise == "l2" else to_float32(z)

    def gradients(self, u: Pair, targets: Pair, negatives: Pair) -> Pair:
        """N ∂L/∂u of the mean losses of both views."""
        g1, g2 = self.decompose(u, targets, negatives)
        return g1.total, g2.total

    @torch.no_grad()
    def decompose(self, u: Pair, targets: Pair, negatives: Pair) -> tuple[Gradient, Gradient]:
        """The same in parts: `targets` are in the positive part, `negatives` in the negative part."""
        config, form = self.config, self.form(u, negatives)

        def of_view(view: int) -> Gradient:
            gradient = form(view, negatives[1 - view])
            if config.plain_positive:
                gradient = gradient._replace(positive=-targets[1 - view])
            elif targets is not negatives:
                gradient = gradient._replace(positive=form(view, targets[1 - view]).positive)
            if config.balance is not None:
                gradient = gradient._replace(balance=config.balance)
            return gradient

        return of_view(0), of_view(1)

    def form(self, u: Pair, negatives: Pair) -> Callable[[int, Tensor], Gradient]:
        """The family's gradient as a function of a view's number and of its targets [N,d]."""
        config, balance = self.config, self.config.balance
        match config.negative:
            case "unigrad":
                correlation = self.correlation(torch.cat(negatives))
                weight = 100.0 if balance is None else balance
                return lambda view, u2: unified.unigrad(u[view], u2, correlation, weight)
            case "contrastive":
                bank = torch.cat([collectives.all_gather(v) for v in negatives])
                itself: list[Tensor | None] = [None, None]
                if config.target != "momentum":  # then u1 is in the bank, too
                    own = collectives.local_rows(len(u[0]), bank.device)
                    itself = [own, own + len(bank) // 2]
                return lambda view, u2: unified.contrastive(
                    u[view], u2, bank, config.temperature, itself[view]
                )
            case "asymmetric":
                correlation = self.correlation(torch.cat(negatives))
                predictor = spectral(correlation, 0.5, config.epsilon)
                quadratic = spectral(correlation, 1.0, config.epsilon**2)
                return lambda view, u2: unified.asymmetric(u[view], u2, predictor, quadratic)
            case "barlow-twins":
                online, banks = [[collectives.all_gather(v) for v in pair] for pair in (u, negatives)]
                weight = 50.0 if balance is None else balance
                return lambda view, u2: unified.barlow_twins(
                    u[view], u2, weight, online[view], banks[1 - view]
                )
            case "vicreg":
                online = [collectives.all_gather(v) for v in u]
                return lambda view, u2: self.vicreg(u[view], u2, online[view])

    def vicreg(self, u1: Tensor, u2: Tensor, bank: Tensor) -> Gradient:
        """VICReg's gradient, with its bracket or without."""
        samples, dim = bank.shape
        covariance = dim / 25
        if self.config.balance is not None:
            covariance *= self.config.balance / unified.balance_of_vicreg(covariance, samples, dim)
        gradient = unified.vicreg(u1, u2, bank, covariance, dim / 2)
        if self.config.drop_bracket:
            return gradient._replace(negative=u1 @ (bank.T @ bank) / samples)
        return gradient

    def before_forward(self, info: StepInfo) -> None:
        if self.config.target != "stop-gradient":
            momentum = rising(self.config.momentum, info.done)
            move(self.target_backbone, self.backbone, momentum)
            move(self.target_projector, self.projector, momentum)
