"""The options of simsiam-variants: SimSiam's, the switches of the paper's ablations, and others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from siamtransfer.methods.parts.mlp import Activation
from siamtransfer.methods.simsiam import SimSiamConfig
from siamtransfer.methods.simsiam_variants.clusters import ClusterConfig
from siamtransfer.methods.simsiam_variants.extra_losses import TermsConfig
from siamtransfer.methods.simsiam_variants.similarities import DistanceConfig, SimilarityName
from siamtransfer.methods.simsiam_variants.targets import TargetConfig
from siamtransfer.utils.checks import at_least


@dataclass
class SimSiamVariantsConfig(SimSiamConfig):
    """SimSiam's options, the switches of the paper's ablations (section 4), and options beyond the paper,
    which are marked as ours. With the defaults the method is SimSiam to the bit."""

    symmetric: bool = True
    """Average the loss over both directions, or use view 1 -> view 2 only (section 4.6), and view 3 -> view 4
    where a recipe makes four. More than two views otherwise predict each other, all of them the global ones
    (as in SwAV's multi-crop); see target.views."""
    projector_rank: int | None = None
    """Channels between two factors of the projector's last layer, the rank of its weights (ours); null: no
    factors."""
    activation: Activation = "relu"
    """Between the layers of projector and predictor (others than relu are ours)."""
    predictor: Literal["trained", "fixed", "none"] = "trained"
    """A trained predictor, a fixed random one, or none (table 1)."""
    predictor_layers: int = 2
    """Layers of the predictor (others than 2 are ours)."""
    predictor_shape: Literal["bottleneck", "residual", "experts"] = "bottleneck"
    """The paper's; z + h(z); or a weighted sum of several, with weights from z (both ours)."""
    predictor_experts: int = 4
    """Number of experts, in the shape experts."""
    backbone_lr_scale: float = 1.0
    """The backbone's learning rate in units of the heads'; below 1 for one with backbone.weights (ours)."""
    freeze_patches: bool = False
    """Leave a ViT's patch embedding at its random start, as MoCo v3 does (arXiv 2104.02057)."""
    batch_norm: Literal["none", "hidden", "default", "output-affine", "all"] = "default"
    """Where batch norm stands (table 3): nowhere, in hidden layers, also after the projector without affine
    parameters (the published code) or with them, or after the predictor too."""
    similarity: SimilarityName = "cosine"
    """Negative cosine, or cross-entropy between channel softmaxes (section 4.5); others are ours."""
    distance: DistanceConfig = field(default_factory=DistanceConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    clusters: ClusterConfig = field(default_factory=ClusterConfig)
    terms: TermsConfig = field(default_factory=TermsConfig)

    section = "simsiam_variants"
    collapse_causes = (
        "a predictor that is missing, fixed or decayed (simsiam_variants.predictor, "
        "simsiam_variants.predictor_lr)",
        "no stop-gradient, or one that passes much of the gradient (simsiam_variants.stop_gradient, "
        "simsiam_variants.target.gradient)",
    )

    def check(self, batch: int) -> None:
        super().check(batch)
        at_least("simsiam_variants.projector_rank", self.projector_rank, 1)
        at_least("simsiam_variants.predictor_layers", self.predictor_layers, 1)
        at_least("simsiam_variants.predictor_experts", self.predictor_experts, 2)
        at_least("simsiam_variants.backbone_lr_scale", self.backbone_lr_scale, 0)
        for options in (self.distance, self.target, self.clusters, self.terms):
            options.check()

    @property
    def needs_index(self) -> bool:
        """Whether an option keeps a value for every image."""
        return self.target.memory is not None or self.clusters.fraction > 0 or self.terms.labels > 0
