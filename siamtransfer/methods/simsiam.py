"""SimSiam (Chen and He, Exploring Simple Siamese Representation Learning, arXiv 2011.10566).

Two views of an image, one network: the prediction from one view should point where the other view's
projection points. No negatives, no momentum encoder; the stop-gradient on the target is what keeps the
network from answering the same for every image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.methods.heads import Norm, mlp
from siamtransfer.methods.method import Method, ParameterGroup, StepOutput, trainable


@dataclass
class SimSiamConfig:
    """SimSiam's heads and the switches of the paper's ablations (section 4); the defaults are the paper's."""

    dim: int = 2048
    """Width d of projections and predictions."""
    projector_layers: Literal[2, 3] = 3
    """Layers of the projector: 3 on ImageNet, 2 on CIFAR-10 (appendix D)."""
    predictor_hidden: int | None = None
    """Hidden width of the predictor; null is the paper's bottleneck, d/4."""
    stop_gradient: bool = True
    """False lets the gradient into the target as well, and the network collapses (section 4.1)."""
    predictor: Literal["trained", "fixed", "none"] = "trained"
    """A trained predictor, a fixed random one, or none (table 1)."""
    predictor_rate: Literal["constant", "decayed"] = "constant"
    """Learning rate of the predictor: constant works a little better than decayed (table 1c)."""
    predictor_rate_scale: float = 1.0
    """The predictor's learning rate in units of the encoder's initial one. Above 1 the predictor keeps up
    with a fast-changing encoder (Tian et al., arXiv 2102.06810), as short runs need; the paper has 1."""
    batch_norm: Literal["none", "hidden", "default", "output-affine", "all"] = "default"
    """Where batch norm stands (table 3): nowhere, in hidden layers, also after the projector without affine
    parameters (the published code) or with them, or after the predictor too."""
    symmetric: bool = True
    """Average the loss over both directions, or use view 1 -> view 2 only (section 4.6)."""
    similarity: Literal["cosine", "cross-entropy"] = "cosine"
    """Negative cosine, or cross-entropy between channel softmaxes (section 4.5)."""


class SimSiam(Method):
    """L = ½ D(p1, stop(z2)) + ½ D(p2, stop(z1)) with z = g(f(x)), p = h(z)."""

    def __init__(self, backbone: nn.Module, config: SimSiamConfig):
        super().__init__(backbone)
        self.config = config
        features, d = int(backbone.dim), config.dim  # type: ignore[arg-type]
        hidden: Norm = "none" if config.batch_norm == "none" else "affine"
        after_projector: Norm = {"default": "plain", "output-affine": "affine", "all": "plain"}.get(  # type: ignore[assignment]
            config.batch_norm, "none"
        )
        self.projector = mlp(
            [features] * config.projector_layers + [d], hidden=hidden, output=after_projector
        )
        if after_projector != "none":
            # Batch norm removes this bias; the published code keeps it, frozen at its initial value.
            self.projector[-2].bias.requires_grad_(False)
        self.predictor: nn.Module = nn.Identity()
        if config.predictor != "none":
            bottleneck = config.predictor_hidden or max(1, d // 4)
            after_predictor: Norm = "affine" if config.batch_norm == "all" else "none"
            self.predictor = mlp([d, bottleneck, d], hidden=hidden, output=after_predictor)
            self.predictor.requires_grad_(config.predictor == "trained")

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two views [N,3,S,S] -> loss in [-1, 1] for cosine similarity (-1 is full agreement)."""
        x1, x2 = views
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = self.distance(p1, self.target(z2))
        if self.config.symmetric:
            loss = loss / 2 + self.distance(p2, self.target(z1)) / 2
        return StepOutput(loss, [z1.detach(), z2.detach()])

    def target(self, z: Tensor) -> Tensor:
        """The stop-gradient: a projection serves as a constant target."""
        return z.detach() if self.config.stop_gradient else z

    def distance(self, p: Tensor, z: Tensor) -> Tensor:
        """D(p, z), the mean over the batch of p[N,d] and its target z[N,d], in float32 or better."""
        p, z = (x.float() if x.dtype.itemsize < 4 else x for x in (p, z))
        if self.config.similarity == "cosine":
            return -F.cosine_similarity(p, z, dim=1).mean()
        return -(z.softmax(dim=1) * p.log_softmax(dim=1)).sum(dim=1).mean()

    def groups(self) -> list[ParameterGroup]:
        groups = [
            ParameterGroup("encoder", trainable(self.backbone) + trainable(self.projector)),
            ParameterGroup(
                "predictor",
                trainable(self.predictor),
                self.config.predictor_rate == "constant",
                self.config.predictor_rate_scale,
            ),
        ]
        return [group for group in groups if group.parameters]
