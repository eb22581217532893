"""SimSiam's options: the switches of the paper's ablations, and what lies beyond the paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from siamtransfer.methods.base import Options
from siamtransfer.methods.parts.mlp import Activation
from siamtransfer.methods.simsiam_variants.clusters import ClusterConfig
from siamtransfer.methods.simsiam_variants.extra_losses import TermsConfig
from siamtransfer.methods.simsiam_variants.similarities import DistanceConfig, SimilarityName
from siamtransfer.methods.simsiam_variants.targets import TargetConfig
from siamtransfer.utils.checks import at_least


@dataclass
class SimSiamConfig(Options):
    """SimSiam's heads and the switches of the paper's ablations (section 4), and what lies beyond the paper,
    marked as ours; the defaults are the paper's."""

    dim: int = 2048
    """Width d of projections and predictions."""
    projector_layers: Literal[2, 3] = 3
    """Layers of the projector: 3 on ImageNet, 2 on CIFAR-10 (appendix D)."""
    projector_rank: int | None = None
    """Channels that the projector's last layer goes through, the rank of its weights (ours); null: all."""
    activation: Activation = "relu"
    """Between the layers of projector and predictor (others than relu are ours)."""
    predictor: Literal["trained", "fixed", "none"] = "trained"
    """A trained predictor, a fixed random one, or none (table 1)."""
    predictor_hidden: int | None = None
    """Hidden width of the predictor; null is the paper's bottleneck, d/4."""
    predictor_layers: int = 2
    """Layers of the predictor (others than 2 are ours)."""
    predictor_shape: Literal["bottleneck", "residual", "experts"] = "bottleneck"
    """The paper's; z + h(z); or a weighted sum of several, with weights from z (both ours)."""
    predictor_experts: int = 4
    """How many, in the shape experts."""
    predictor_rate: Literal["constant", "decayed"] = "constant"
    """Learning rate of the predictor: constant works a little better than decayed (table 1c)."""
    predictor_rate_scale: float = 1.0
    """The predictor's learning rate in units of the encoder's initial one. Above 1 the predictor keeps up
    with a fast-changing encoder (Tian et al., arXiv 2102.06810), as short runs need; the paper has 1."""
    backbone_rate_scale: float = 1.0
    """The backbone's learning rate in units of the heads'; below 1 for one with backbone.weights (ours)."""
    freeze_patches: bool = False
    """Leave a ViT's patch embedding at its random start, as MoCo v3 does (arXiv 2104.02057)."""
    batch_norm: Literal["none", "hidden", "default", "output-affine", "all"] = "default"
    """Where batch norm stands (table 3): nowhere, in hidden layers, also after the projector without affine
    parameters (the published code) or with them, or after the predictor too."""
    stop_gradient: bool = True
    """False lets the gradient into the target as well, and the network collapses (section 4.1)."""
    symmetric: bool = True
    """Average the loss over both directions, or use view 1 -> view 2 only (section 4.6), and view 3 -> view 4
    where a recipe makes four. More than two views otherwise predict each other, all of them the global ones
    (as in SwAV's multi-crop); see target.views."""
    similarity: SimilarityName = "cosine"
    """Negative cosine, or cross-entropy between channel softmaxes (section 4.5); others are ours."""
    distance: DistanceConfig = field(default_factory=DistanceConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    clusters: ClusterConfig = field(default_factory=ClusterConfig)
    terms: TermsConfig = field(default_factory=TermsConfig)

    collapse_causes = (
        "a predictor that is missing, fixed or decayed (simsiam.predictor, simsiam.predictor_rate)",
        "no stop-gradient, or one that lets much through (simsiam.stop_gradient, simsiam.target.gradient)",
    )

    def check(self, batch: int) -> None:
        at_least("simsiam.dim", self.dim, 1)
        at_least("simsiam.projector_rank", self.projector_rank, 1)
        at_least("simsiam.predictor_hidden", self.predictor_hidden, 1)
        at_least("simsiam.predictor_layers", self.predictor_layers, 1)
        at_least("simsiam.predictor_experts", self.predictor_experts, 2)
        at_least("simsiam.predictor_rate_scale", self.predictor_rate_scale, 0)
        at_least("simsiam.backbone_rate_scale", self.backbone_rate_scale, 0)
        for part in (self.distance, self.target, self.clusters, self.terms):
            part.check()

    @property
    def needs_index(self) -> bool:
        """Whether an option remembers something of every image."""
        return self.target.memory is not None or self.clusters.share > 0 or self.terms.labels > 0
