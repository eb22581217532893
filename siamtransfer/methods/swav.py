"""SwAV (Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv
2006.09882).

The code of an image is a soft assignment to prototypes. It is computed from one global view, under the
constraint that all prototypes are used equally; every other view of the image has to predict it. The
constraint prevents that all images get the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.base import UNCENTRED, Method, Options, StepInfo, StepOutput
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.multicrop import GLOBALS, cross_entropy_between_views, encode
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError


@dataclass
class SwAVConfig(Options):
    """SwAV's heads, codes and queue; the defaults are those of the published runs at batch 4096."""

    hidden: int = 2048
    """Hidden width of the projector."""
    dim: int = 128
    """Width d of projections and prototypes."""
    prototypes: int = 3000
    """Number of prototypes K."""
    temperature: float = 0.1
    """Temperature τ of the softmax that predicts a code."""
    epsilon: float = 0.05
    """Softness of the codes: larger is closer to uniform. The authors take 0.03 if the loss stays at ln K."""
    sinkhorn_iterations: int = 3
    """Iterations that normalise prototypes, then samples."""
    freeze_prototypes_steps: int = 313
    """Steps at the start that do not change the prototypes: 313 at batch 4096, 5005 at 256."""
    queue: int = 0
    """Number of embeddings of earlier batches, per global view and over all ranks, that are used in the codes
    when batches are small: 3840 at batch 256; 0: none."""
    queue_from_epoch: int = 15
    """The epoch (from 0) that starts to fill the queue; it is used once it is full."""

    collapse_causes = ("codes that give all prototypes nearly the same weight (swav.epsilon)",)
    least_std, least_rank_fraction = UNCENTRED

    def check(self, batch: int) -> None:
        for key in ("hidden", "dim", "prototypes", "sinkhorn_iterations"):
            at_least(f"swav.{key}", getattr(self, key), 1)
        for key in ("freeze_prototypes_steps", "queue", "queue_from_epoch"):
            at_least(f"swav.{key}", getattr(self, key), 0)
        above("swav.temperature", self.temperature, 0)
        # Below this, float32 does not hold exp(1 / epsilon).
        at_least("swav.epsilon", self.epsilon, 0.012)
        if 0 < self.queue < batch:
            raise UserError(
                f"swav.queue {self.queue} is shorter than optim.batch_size {batch}, whose embeddings it "
                "receives: raise it to several batches, or set it to 0 for none"
            )


class SwAV(Method):
    """L = ½ Σ_i 1/(V+1) Σ_{v≠i} -q_i · log softmax(s_v / τ) over codes q of the two global views i, scores
    s = C n(g(f(x))) of all V+2 views, and prototypes C with rows of unit length."""

    Config = SwAVConfig
    config: SwAVConfig
    multi_crop = True
    recordable = True
    queue: Tensor

    def __init__(self, backbone: Backbone, config: SwAVConfig):
        super().__init__(backbone, config)
        features = backbone.dim
        self.projector = mlp([features, config.hidden, config.dim], hidden_bias=True)
        self.prototypes = nn.Linear(config.dim, config.prototypes, bias=False)
        self.register_buffer("queue", torch.zeros(GLOBALS, config.queue, config.dim))
        self.fills_queue = False
        self.queue_is_full = [False] * GLOBALS  # of each view; a full queue stays full

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two global views [N,3,S,S] and any number of local ones -> loss, ln K for uniform codes and
        scores."""
        z = l2_normalize(self.projector(encode(self.backbone, views)))
        with no_tf32(z):
            scores = self.prototypes(z)
            z_by_view, scores_by_view = (x.detach().chunk(len(views)) for x in (z, scores))
            codes = [self.codes(i, z_by_view[i], scores_by_view[i]) for i in range(GLOBALS)]
            predictions = (scores / self.config.temperature).log_softmax(dim=1).chunk(len(views))
            loss = cross_entropy_between_views(codes, predictions)
        return StepOutput(loss, list(z_by_view))

    @torch.no_grad()
    def codes(self, view: int, z: Tensor, scores: Tensor) -> Tensor:
        """q[N,K] of the global view number `view`. A full queue takes part, and receives this batch."""
        config, samples = self.config, len(z)
        if self.fills_queue:
            if not self.queue_is_full[view]:
                self.queue_is_full[view] = bool(self.queue[view, -1].any())
            if self.queue_is_full[view]:
                # All ranks hold the queue; each adds its own rows of it.
                past = self.queue[view, collectives.rank() :: collectives.world_size()]
                scores = torch.cat([self.prototypes(past), scores])
            self.queue[view] = torch.cat([collectives.all_gather(z), self.queue[view]])[: config.queue]
        return sinkhorn(scores, config.epsilon, config.sinkhorn_iterations)[-samples:]

    @property
    def graph_key(self) -> bool | None:
        return None if self.fills_queue and not all(self.queue_is_full) else self.fills_queue

    @torch.no_grad()
    def before_forward(self, info: StepInfo) -> None:
        self.fills_queue = self.config.queue > 0 and info.epoch >= self.config.queue_from_epoch
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def before_update(self, info: StepInfo) -> None:
        if info.step < self.config.freeze_prototypes_steps:
            self.prototypes.weight.grad = None


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Scores [B,K] of this rank's samples -> codes [B,K] near exp(scores / epsilon) in which every sample has
    weight 1 and every prototype nearly the same weight over the samples of all ranks.

    The paper's factors 1/B and 1/K cancel and are left out.
    """
    q = (scores / epsilon).exp()
    for _ in range(iterations):
        q = q / collectives.all_reduce(q.sum(dim=0))
        q = q / q.sum(dim=1, keepdim=True)
    return q
