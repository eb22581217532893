"""What other methods have and SimSiam leaves out, added one by one: negatives, a queue of them, clustering,
and whitening. (The fourth part, a momentum encoder, is the option target.fraction.)

The SimSiam paper calls its method a hub (arXiv 2011.10566, section 6): SimCLR without negatives, SwAV without
online clustering, BYOL without the momentum encoder. The losses here have a factor τ, so that the pull to the
target is as strong as SimSiam's at any temperature, and one learning rate serves all but clustering: codes of
many prototypes pull less, and want a higher one.

Legend: N rows of this rank, M of all ranks, d dimensions, p predictions, t targets, n(·) scales rows to unit
length.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.distributed import collectives
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32, to_float32
from siamtransfer.methods.parts.queue import KeyQueue
from siamtransfer.methods.swav import sinkhorn
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError

SECTION = "simsiam_variants.hub"
SHRINKAGE = 1e-3
"""Fraction of the identity in a covariance that is whitened."""
SINKHORN_ITERATIONS = 3
CONTRAST_TEMPERATURE, CODE_TEMPERATURE, EPSILON = 0.2, 0.1, 0.05  # MoCo v2's, and SwAV's two

Pairs = Sequence[tuple[int, Tensor]]
"""The number of a prediction's view, and a target [N,d] of that prediction."""


@dataclass
class HubConfig:
    """Parts of other methods that SimSiam leaves out; the defaults leave them out."""

    negatives: Literal["none", "other-view", "both-views"] = "none"
    """Other images of the batch as negatives: the loss is -τ log(exp(cos(p, t)/τ) / Σ_v exp(cos(p, v)/τ)).
    The v are the targets t of the batch from the target's view (as in MoCo v3), or from both views, without
    the image's own from the prediction's view (as in SimCLR)."""
    queue: int = 0
    """Number of targets of earlier batches that are negatives v in this loss (as in MoCo); 0: none."""
    prototypes: int = 0
    """Number K of prototypes C: the loss is -τ Σ_k q_k log softmax(C n(p)/τ)_k with the target's code q, its
    soft assignment to prototypes that the batch uses equally (as in SwAV); 0: no clustering."""
    temperature: float | None = None
    """τ; null: 0.2 with negatives or a queue, 0.1 with prototypes."""
    epsilon: float | None = None
    """Softness of the codes; null: 0.05."""
    whitening: int = 0
    """Number of channels of projections that are whitened together over the batch, L⁻¹ (z - mean) with L Lᵀ
    their covariance (as in W-MSE, arXiv 2007.06346, which whitens all together; in groups after arXiv
    1804.08450). It has to divide d and be below the batch; 0: none."""

    @property
    def has_loss(self) -> bool:
        """Whether a part replaces the distance between prediction and target."""
        return self.negatives != "none" or self.queue > 0 or self.prototypes > 0

    def check(self, batch: int, dim: int) -> None:
        """Raises UserError for values that mean nothing with `batch` images a step and projections of `dim`
        channels."""
        for key in ("queue", "prototypes", "whitening"):
            at_least(f"{SECTION}.{key}", getattr(self, key), 0)
        above(f"{SECTION}.temperature", self.temperature, 0)
        at_least(f"{SECTION}.epsilon", self.epsilon, 0.012)  # below this, float32 does not hold exp(1 / ε)
        if self.prototypes and (self.negatives != "none" or self.queue):
            raise UserError(
                f"{SECTION}.prototypes is one loss, negatives or a queue are another: leave one of them out"
            )
        if self.temperature is not None and not self.has_loss:
            raise UserError(
                f"{SECTION}.temperature changes nothing without negatives, a queue or prototypes: "
                f"leave it out, or set {SECTION}.negatives, {SECTION}.queue or {SECTION}.prototypes"
            )
        if self.epsilon is not None and not self.prototypes:
            raise UserError(
                f"{SECTION}.epsilon changes nothing without prototypes: "
                f"leave it out, or set {SECTION}.prototypes"
            )
        if self.prototypes == 1:
            raise UserError(f"{SECTION}.prototypes is 1, and every code is the same: take 2 or more, or 0")
        if 0 < self.queue < batch:
            raise UserError(
                f"{SECTION}.queue {self.queue} is shorter than optim.batch_size {batch}, whose targets it "
                "receives: raise it to several batches, or set it to 0 for none"
            )
        self._check_whitening(batch, dim)

    def check_beside(self, changed: Collection[str]) -> None:
        """Raises UserError where one of the options `changed`, which are not at their defaults, has no effect
        beside these."""
        if self.has_loss:
            loss = "prototypes" if self.prototypes else "queue" if self.queue else "negatives"
            for key in ("similarity", "distance"):
                if key in changed:
                    raise UserError(
                        f"simsiam_variants.{key} changes nothing with {SECTION}.{loss}, whose loss takes the "
                        "place of the distance: leave one out"
                    )
        if self.prototypes:
            for key in ("stop_gradient", "target.gradient"):
                if key in changed:
                    raise UserError(
                        f"simsiam_variants.{key} changes nothing with {SECTION}.prototypes, "
                        "for codes take no gradient: leave it out"
                    )

    def _check_whitening(self, batch: int, dim: int) -> None:
        if not self.whitening:
            return
        if self.whitening == 1:
            raise UserError(
                f"{SECTION}.whitening is 1, and one channel alone is what batch norm standardises: take 2 or "
                "more, or 0"
            )
        if dim % self.whitening:
            raise UserError(
                f"{SECTION}.whitening {self.whitening} does not divide simsiam_variants.dim {dim}: groups of "
                "channels have to be equal"
            )
        if self.whitening >= batch:
            raise UserError(
                f"{SECTION}.whitening {self.whitening} is not below optim.batch_size {batch}, and the "
                "covariance of a batch has a lower rank than the batch: whiten fewer channels together, or "
                "raise the batch"
            )


def build_loss(config: HubConfig, dim: int) -> Contrast | Codes | None:
    """The loss that replaces the distance; None where no part does."""
    if config.prototypes:
        return Codes(config, dim)
    return Contrast(config, dim) if config.has_loss else None


class Contrast(nn.Module):
    """The mean over pairs and rows of -τ log(exp(cos(p, t)/τ) / Σ_v exp(cos(p, v)/τ)); see HubConfig for v.

    After the loss the queue takes in the targets of the step, of all ranks.
    """

    def __init__(self, config: HubConfig, dim: int):
        super().__init__()
        self.negatives = config.negatives
        self.temperature = config.temperature or CONTRAST_TEMPERATURE
        self.queue = KeyQueue(config.queue, dim) if config.queue else None

    def forward(self, predictions: list[Tensor], pairs: Pairs, targets: list[Tensor]) -> Tensor:
        """`targets` [N,d] of every global view; those of `pairs` may be others, made from them."""
        p = [l2_normalize(x) for x in predictions]
        own = [l2_normalize(x) for x in targets]
        units = {id(target): l2_normalize(target) for _, target in pairs}
        with no_tf32(p[0]):
            losses = [
                self.of_pair(p[view], units[id(target)], own[view] if view < len(own) else None)
                for view, target in pairs
            ]
        if self.queue is not None:
            self.queue.push(torch.cat([collectives.all_gather(unit.detach()) for unit in units.values()]))
        return torch.stack(losses).mean()

    def of_pair(self, p: Tensor, t: Tensor, own: Tensor | None) -> Tensor:
        """The mean over this rank's unit vectors p[N,d] with targets t[N,d]; `own` are the targets of the
        prediction's view, None for a local view, which has none."""
        rows = collectives.local_rows(len(p), p.device)
        if self.negatives == "none":
            logits, label = (p * t).sum(dim=1, keepdim=True), torch.zeros_like(rows)
        else:
            logits, label = p @ collectives.all_gather_with_grad(t).T, rows
        if self.negatives == "both-views" and own is not None:
            of_own_view = p @ collectives.all_gather_with_grad(own).T
            logits = torch.cat([logits, of_own_view.scatter(1, rows[:, None], -torch.inf)], dim=1)
        if self.queue is not None:
            # A copy, for the queue changes before the backward pass.
            logits = torch.cat([logits, p @ self.queue.rows.T.clone()], dim=1)
        return self.temperature * F.cross_entropy(logits / self.temperature, label)


class Codes(nn.Module):
    """The mean over pairs and rows of -τ Σ_k q_k log softmax(C n(p)/τ)_k; q = Sinkhorn(C n(t)/ε) is a
    constant, and C are prototypes of unit length."""

    def __init__(self, config: HubConfig, dim: int):
        super().__init__()
        self.temperature = config.temperature or CODE_TEMPERATURE
        self.epsilon = config.epsilon or EPSILON
        self.prototypes = nn.Linear(dim, config.prototypes, bias=False)

    @torch.no_grad()
    def normalise(self) -> None:
        """Scales prototypes to unit length, as before every step."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def forward(self, predictions: list[Tensor], pairs: Pairs, targets: list[Tensor]) -> Tensor:
        p = [l2_normalize(x) for x in predictions]
        with no_tf32(p[0]):
            codes = {id(target): self.code(target) for _, target in pairs}
            logs = [(self.prototypes(x) / self.temperature).log_softmax(dim=1) for x in p]
        losses = [-(codes[id(target)] * logs[view]).sum(dim=1).mean() for view, target in pairs]
        return self.temperature * torch.stack(losses).mean()

    @torch.no_grad()
    def code(self, target: Tensor) -> Tensor:
        """q[N,K] of targets [N,d]."""
        return sinkhorn(self.prototypes(l2_normalize(target)), self.epsilon, SINKHORN_ITERATIONS)


class Whitening(nn.Module):
    """z[N,d] -> L⁻¹ (z - mean) for every group of `channels` channels, with L Lᵀ = (1 - ε) Cov + ε I, Cov the
    covariance of the rows of all ranks, and ε = SHRINKAGE. It has no weights and no running statistics.

    Raises:
        UserError: a pass has no more rows than channels, as where optim.grad_accum_steps parts a batch.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, z: Tensor) -> Tensor:
        x = to_float32(z)
        samples = len(x) * collectives.world_size()
        if samples <= self.channels:
            raise UserError(
                f"{SECTION}.whitening {self.channels} is not below the {samples} images of a pass, whose "
                "covariance has a lower rank: whiten fewer channels together, or lower optim.grad_accum_steps"
            )
        with no_tf32(x):
            x = x - collectives.all_reduce_with_grad(x.sum(dim=0)) / samples
            x = x.unflatten(1, (-1, self.channels)).permute(1, 2, 0)  # [groups, channels, N]
            cov = collectives.all_reduce_with_grad(x @ x.mT) / (samples - 1)
            cov = (1 - SHRINKAGE) * cov + SHRINKAGE * torch.eye(self.channels, dtype=x.dtype, device=x.device)
            # Of numbers that are not finite, too: the loss is so, then.
            factor, _ = torch.linalg.cholesky_ex(cov)
            return torch.linalg.solve_triangular(factor, x, upper=False).permute(2, 0, 1).flatten(1)
