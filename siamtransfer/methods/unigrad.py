"""UniGrad (Tao et al., Exploring the Equivalence of Siamese Self-Supervised Learning via A Unified Gradient
Framework, arXiv 2112.05141), and the gradients of the families that it unifies, by an option each.

The method is defined by a gradient: an embedding is pulled to the other view's momentum embedding and pushed
along the correlation matrix of all embeddings. The loss is the product of the embedding and this gradient,
which counts as a constant; so autograd passes the gradient on into the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.base import UNCENTRED, Method, Options, StepInfo, StepOutput
from siamtransfer.methods.parts import unified_gradient as unified
from siamtransfer.methods.parts.correlation import Correlation, spectral
from siamtransfer.methods.parts.ema import momentum_copy, move, rising
from siamtransfer.methods.parts.mixing import TrainingViews, by_role, held, mixed_targets, over_shares
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.multicrop import GLOBALS, anchors_and_targets
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32, to_float32
from siamtransfer.methods.parts.queue import KeyQueue
from siamtransfer.methods.parts.unified_gradient import Gradient
from siamtransfer.utils.checks import above, at_least, changed, within
from siamtransfer.utils.errors import UserError

OF_FAMILY = {
    "plain_positive": ("asymmetric", "barlow-twins"),
    "drop_bracket": ("vicreg",),
    "queue": ("contrastive",),
    "temperature": ("contrastive",),
    "epsilon": ("asymmetric",),
}
"""The gradients in which an option has a meaning. `rho` and `momentum` are not here: recipes state them for
all families and targets alike."""
Embeddings = Sequence[Tensor]
"""Embeddings [N,d] of view 1, of view 2, and so on."""


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
    """Fraction of the old F that an update keeps, in the families unigrad and asymmetric. Every pass over a
    part of a batch (optim.grad_accum_steps) is an update of its own."""
    momentum: float = 0.996
    """The target's momentum at the start; it rises to 1 along a cosine. Without a momentum encoder it changes
    nothing."""
    temperature: float = 0.2
    """Temperature τ of the contrastive gradient."""
    queue: int = 0
    """Number of embeddings of earlier batches, the negatives of the contrastive gradient (as in MoCo);
    0: those of the batch (as in SimCLR)."""
    epsilon: float = 0.3
    """DirectPred's ε in the asymmetric gradient."""

    least_std, least_rank_fraction = UNCENTRED

    def check(self, batch: int) -> None:
        at_least("unigrad.hidden", self.hidden, 1)
        at_least("unigrad.dim", self.dim, 1)
        above("unigrad.balance", self.balance, 0)
        above("unigrad.temperature", self.temperature, 0)
        above("unigrad.epsilon", self.epsilon, 0)
        within("unigrad.rho", self.rho, 0, 1)
        within("unigrad.momentum", self.momentum, 0, 1)
        at_least("unigrad.queue", self.queue, 0)
        for key in changed(self, *OF_FAMILY):
            if self.negative not in OF_FAMILY[key]:
                raise UserError(
                    f"unigrad.{key} changes nothing in the gradient of {self.negative}: leave it out, or set "
                    f"unigrad.negative to {' or '.join(OF_FAMILY[key])}"
                )
        if 0 < self.queue < 2 * batch:
            raise UserError(
                f"unigrad.queue {self.queue} is shorter than twice optim.batch_size {batch}, and it receives "
                "both views of a batch: raise it to several batches, or set it to 0 for none"
            )


class UniGrad(Method):
    """L = ½ mean stop(g1)·u1 + ½ mean stop(g2)·u2 with g1 = -u2' + λ F u1 and g2 = -u1' + λ F u2, unit
    vectors u = n(g(f(x))), u' of the momentum encoder, and F the correlation of u', this batch included.

    Views beyond two are anchors only. The u' of a mixed view is the mixture, by area, of those of its images.
    """

    Config = UniGradConfig
    config: UniGradConfig
    multi_crop = True
    mixes = True

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
        if config.queue:
            self.queue = KeyQueue(config.queue, config.dim)
        self.recordable = config.negative != "asymmetric"  # whose eigenvectors make the host wait

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two global views [N,3,S,S], any number of local ones, and mixed ones after them (parts/mixing.py)
        -> a loss that defines the gradient; its value has little meaning.

        Every view is an anchor, and has a pair with each global view but itself; the loss is the mean over
        pairs. Targets and F are of the global views of one image each.
        """
        x = by_role(views)
        z = [self.projector(self.backbone(view)) for view in x.online]
        u = [self.embed(projection) for projection in z]
        targets, negatives = self.references(x.plain, self.embed_plain(x) if x.mixed else u)
        with no_tf32(z[0]):
            gradients = self.decompose(u, targets, negatives, x.shares)
        pairs = anchors_and_targets(len(u))
        losses = [
            (gradient.total * u[anchor]).sum(dim=1).mean() / len(pairs)
            for (anchor, _), gradient in zip(pairs, gradients, strict=True)
        ]
        return StepOutput(sum(losses[1:], losses[0]), [projection.detach() for projection in z])

    @torch.no_grad()
    def embed_plain(self, x: TrainingViews) -> list[Tensor]:
        """The online network's embeddings of the global views of one image each, where they are used."""
        if self.config.target == "momentum":
            return []
        return [self.embed(self.projector(self.backbone(view))) for view in x.plain[:GLOBALS]]

    def references(self, views: Sequence[Tensor], u: Sequence[Tensor]) -> tuple[Embeddings, Embeddings]:
        """The targets of the positive part and those of the negative part, both of the two global views, for
        embeddings `u` of `views`."""
        online = [embedding.detach() for embedding in u[:GLOBALS]]
        if self.config.target == "stop-gradient":
            return online, online
        targets = [self.target(view) for view in views[:GLOBALS]]
        return targets, targets if self.config.target == "momentum" else online

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        """The momentum encoder's embeddings [N,d] of a view."""
        return self.embed(self.target_projector(self.target_backbone(x)))

    def embed(self, z: Tensor) -> Tensor:
        """u[N,d] of projections; with normalise = batch, batch norm is the projector's last layer."""
        return l2_normalize(z) if self.config.normalise == "l2" else to_float32(z)

    def gradients(self, u: Embeddings, targets: Embeddings, negatives: Embeddings) -> list[Tensor]:
        """N ∂L/∂u of the mean loss of each pair; of two views, one pair each."""
        return [gradient.total for gradient in self.decompose(u, targets, negatives)]

    @torch.no_grad()
    def decompose(
        self,
        u: Embeddings,
        targets: Embeddings,
        negatives: Embeddings,
        shares: Sequence[Tensor | None] | None = None,
    ) -> list[Gradient]:
        """The same in parts, for each pair of `anchors_and_targets`: `targets` of the global views are in the
        positive part, `negatives` in the negative part. The target of an anchor that is mixed is the mixture
        of the targets of both its images by `shares`."""
        config = self.config
        shares = shares or [None] * len(u)
        form = self.form(u, negatives, shares)

        def of_pair(anchor: int, other: int) -> Gradient:
            gradient = form(anchor, mixed_targets(negatives[other], shares[anchor]), other)
            if config.plain_positive:
                gradient = gradient._replace(positive=-mixed_targets(targets[other], shares[anchor]))
            elif targets is not negatives:
                target = mixed_targets(targets[other], shares[anchor])
                gradient = gradient._replace(positive=form(anchor, target, other).positive)
            if config.balance is not None:
                gradient = gradient._replace(balance=config.balance)
            return gradient

        return [of_pair(anchor, other) for anchor, other in anchors_and_targets(len(u))]

    def form(
        self, u: Embeddings, negatives: Embeddings, shares: Sequence[Tensor | None]
    ) -> Callable[[int, Tensor, int], Gradient]:
        """The family's gradient as a function of the anchor's number, of its targets [N,d], and of the number
        of the global view that they are of."""
        config, balance = self.config, self.config.balance
        match config.negative:
            case "unigrad":
                correlation = self.correlation(torch.cat([*negatives]))
                weight = 100.0 if balance is None else balance
                return lambda anchor, u2, _: unified.unigrad(u[anchor], u2, correlation, weight)
            case "contrastive" if config.queue:
                return self.against_queue(u, negatives, shares)
            case "contrastive":
                bank = torch.cat([collectives.all_gather(v) for v in negatives])
                itself: dict[int, Tensor] = {}
                if config.target != "momentum":  # then u1 is in the bank, too, where it is of a global view
                    own = collectives.local_rows(len(u[0]), bank.device)
                    itself = {v: held(own + v * len(bank) // 2, shares[v]) for v in range(GLOBALS)}
                return lambda anchor, u2, _: unified.contrastive(
                    u[anchor], u2, bank, config.temperature, itself.get(anchor)
                )
            case "asymmetric":
                correlation = self.correlation(torch.cat([*negatives]))
                predictor = spectral(correlation, 0.5, config.epsilon)
                quadratic = spectral(correlation, 1.0, config.epsilon**2)
                return lambda anchor, u2, _: unified.asymmetric(u[anchor], u2, predictor, quadratic)
            case "barlow-twins":
                online = [collectives.all_gather(v) for v in u]
                weight = 50.0 if balance is None else balance

                @cache
                def bank_of(anchor: int, other: int) -> Tensor:
                    return collectives.all_gather(mixed_targets(negatives[other], shares[anchor]))

                return lambda anchor, u2, other: unified.barlow_twins(
                    u[anchor], u2, weight, online[anchor], bank_of(anchor, other)
                )
            case "vicreg":
                online = [collectives.all_gather(v) for v in u]
                return lambda anchor, u2, _: self.vicreg(u[anchor], u2, online[anchor])

    def against_queue(
        self, u: Embeddings, negatives: Embeddings, shares: Sequence[Tensor | None]
    ) -> Callable[[int, Tensor, int], Gradient]:
        """MoCo's gradient, whose negatives are the anchor's own u2 and the queue; the queue takes in the
        embeddings of this batch for the next one."""
        queue, temperature = self.queue.rows.clone(), self.config.temperature
        self.queue.push(torch.cat([collectives.all_gather(v) for v in negatives]))

        def form(anchor: int, u2: Tensor, other: int) -> Gradient:
            def away(key: Tensor) -> Tensor:
                return unified.with_queue(u[anchor], key, queue, temperature).negative

            negative = over_shares(away, negatives[other], shares[anchor])
            return Gradient(-u2, negative, scale=1 / temperature)

        return form

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
