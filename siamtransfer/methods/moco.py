"""MoCo (He et al., Momentum Contrast, arXiv 1911.05722) and MoCo v2 (Chen et al., arXiv 2003.04297).

A query is the projection of one view of an image. Its key is the projection of the other view by a slowly
moving average of the network. The query should be more similar to its key than to the keys of earlier
batches, which a queue holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.base import UNCENTRED, Method, Options, StepInfo, StepOutput
from siamtransfer.methods.parts.ema import momentum_copy, move
from siamtransfer.methods.parts.mixing import by_role, over_shares
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32
from siamtransfer.methods.parts.queue import random_keys, replace_oldest
from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError


@dataclass
class MoCoConfig(Options):
    """MoCo's head, queue and momentum; the defaults are version 2's. Version 1 is projector_layers 1 with
    temperature 0.07."""

    dim: int = 128
    """Width d of queries and keys."""
    projector_layers: Literal[1, 2] = 2
    """Layers of the projector, without batch norm: 1 in version 1, 2 in version 2."""
    queue: int = 65536
    """Number of keys of earlier batches, the negatives."""
    temperature: float = 0.2
    """τ of the softmax; 0.07 in version 1."""
    momentum: float = 0.999
    """Momentum of the key encoder, the fraction of it that an update keeps."""
    shuffle: bool = True
    """Encode the keys of each rank on random ranks. Without this, batch norm that is not synchronised over
    ranks would let the network recognise a key by the statistics of its batch (section 3.3)."""

    collapse_causes = (
        "the random vectors that fill the queue at the start; keys of a collapsed network differ from them "
        "(moco.queue)",
    )
    least_std, least_rank_fraction = UNCENTRED

    def check(self, batch: int) -> None:
        at_least("moco.dim", self.dim, 1)
        above("moco.temperature", self.temperature, 0)
        within("moco.momentum", self.momentum, 0, 1)
        if self.queue < batch:
            raise UserError(
                f"moco.queue {self.queue} is shorter than optim.batch_size {batch}, whose keys it receives: "
                "raise it to several batches"
            )


class MoCo(Method):
    """L = -log exp(q·k / τ) / (exp(q·k / τ) + Σ_queue exp(q·k' / τ)) with unit vectors q = g(f(x1)) and
    k = g'(f'(x2)); no gradient flows to keys."""

    Config = MoCoConfig
    config: MoCoConfig
    mixes = True
    recordable = True
    queue: Tensor
    queue_start: Tensor

    def __init__(self, backbone: Backbone, config: MoCoConfig):
        super().__init__(backbone, config)
        features = backbone.dim
        self.projector = mlp([features] * config.projector_layers + [config.dim], hidden="none")
        self.target_backbone = momentum_copy(backbone)
        self.target_projector = momentum_copy(self.projector)
        self.register_buffer("queue", random_keys(config.queue, config.dim))
        self.register_buffer("queue_start", torch.zeros((), dtype=torch.int64))

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S], the query's and the key's, and mixed ones after them (parts/mixing.py) ->
        loss."""
        x = by_role(views)
        q = l2_normalize(self.projector(self.backbone(x.online[0])))
        k = self.keys(x.plain[1])
        with no_tf32(q):
            negatives = q @ self.queue.T.clone()  # enqueue() changes the queue before the backward pass
            loss = self.contrast(q, k, negatives, x.shares[0])
        self.enqueue(collectives.all_gather(k))
        return StepOutput(loss, [q.detach(), k])

    def contrast(self, q: Tensor, k: Tensor, negatives: Tensor, share: Tensor | None) -> Tensor:
        """The mean cross-entropy of q[N,d] against k[N,d], where `negatives` [N,Q] are the products with the
        queue; a mixed q's two keys have the shares [N] and the rest."""
        reduction = "mean" if share is None else "none"

        def against(key: Tensor) -> Tensor:
            positive = (q * key).sum(dim=1, keepdim=True)
            logits = torch.cat([positive, negatives], dim=1) / self.config.temperature
            first = torch.zeros_like(logits[:, 0], dtype=torch.int64)
            return F.cross_entropy(logits, first, reduction=reduction)

        return over_shares(against, k, share).mean()

    @torch.no_grad()
    def keys(self, x: Tensor) -> Tensor:
        """k[N,d] of this rank's x, each row encoded by the rank that the shuffle chooses."""
        if collectives.world_size() == 1 or not self.config.shuffle:
            return l2_normalize(self.target_projector(self.target_backbone(x)))
        own = collectives.local_rows(len(x), x.device)
        order = collectives.broadcast(torch.randperm(len(x) * collectives.world_size(), device=x.device))
        k = l2_normalize(self.target_projector(self.target_backbone(collectives.all_gather(x)[order[own]])))
        return collectives.all_gather(k)[order.argsort()[own]]

    def enqueue(self, keys: Tensor) -> None:
        """Replaces the oldest keys of the queue by keys[n,d]."""
        replace_oldest(self.queue, self.queue_start, keys)

    def before_forward(self, info: StepInfo) -> None:
        move(self.target_backbone, self.backbone, self.config.momentum)
        move(self.target_projector, self.projector, self.config.momentum)
