"""The options of simsiam-variants: SimSiam's, the switches of the paper's ablations, and others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from siamtransfer.methods.parts.mlp import Activation
from siamtransfer.methods.parts.norms import HeadNorm
from siamtransfer.methods.simsiam import SimSiamConfig
from siamtransfer.methods.simsiam_variants.bottleneck import BottleneckConfig
from siamtransfer.methods.simsiam_variants.clusters import ClusterConfig
from siamtransfer.methods.simsiam_variants.columns import ColumnsConfig
from siamtransfer.methods.simsiam_variants.extra_losses import TermsConfig
from siamtransfer.methods.simsiam_variants.hub import HubConfig
from siamtransfer.methods.simsiam_variants.norms import refuse_idle_norms
from siamtransfer.methods.simsiam_variants.similarities import DistanceConfig, SimilarityName
from siamtransfer.methods.simsiam_variants.targets import TargetConfig
from siamtransfer.utils.checks import at_least, changed
from siamtransfer.utils.errors import UserError


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
    projector_gates: int | None = None
    """Gates for every channel and image before the projector's last layer (squeeze and excitation, ours
    here): channels between the two layers that compute the gates. null: no gates."""
    projector_pca: Literal["none", "start", "refit"] = "none"
    """Set the projector's last layer, whose factors projector_rank makes, by the principal components of the
    first batch's features, once or every so many epochs (ours)."""
    projector_pca_every: int = 1
    """Epochs between two fits, with refit."""
    activation: Activation = "relu"
    """Between the layers of projector and predictor (others than relu are ours)."""
    predictor: Literal["trained", "fixed", "none"] = "trained"
    """A trained predictor, a fixed random one, or none (table 1)."""
    predictor_layers: int = 2
    """Layers of the predictor (others than 2 are ours)."""
    predictor_shape: Literal["bottleneck", "residual", "experts", "attention", "depth"] = "bottleneck"
    """The paper's; z + h(z); a weighted sum of several, with weights from z; h after self-attention between
    groups of channels; or residual blocks, of which z chooses how much counts (all four ours)."""
    predictor_experts: int = 4
    """Number of experts, in the shape experts."""
    predictor_groups: int = 8
    """Number of groups of channels, in the shape attention; it divides dim."""
    predictor_blocks: int = 3
    """Number of residual blocks, in the shape depth."""
    backbone_lr_scale: float = 1.0
    """The backbone's learning rate in units of the heads'; below 1 for one with backbone.weights (ours)."""
    freeze_patches: bool = False
    """Leave a ViT's patch embedding at its random start, as MoCo v3 does (arXiv 2104.02057)."""
    batch_norm: Literal["none", "hidden", "default", "output-affine", "all"] = "default"
    """Where batch norm stands (table 3): nowhere, in hidden layers, also after the projector without affine
    parameters (the published code) or with them, or after the predictor too."""
    projector_norm: HeadNorm = "batch"
    """Which norm stands there in the projector: batch norm, layer norm, group norm, group norm with
    standardised weights, or none (arXiv 2010.10241 for BYOL)."""
    predictor_norm: HeadNorm = "batch"
    """Which norm stands there in the predictor, likewise."""
    similarity: SimilarityName = "cosine"
    """Negative cosine, or cross-entropy between channel softmaxes (section 4.5); others are ours."""
    distance: DistanceConfig = field(default_factory=DistanceConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    clusters: ClusterConfig = field(default_factory=ClusterConfig)
    terms: TermsConfig = field(default_factory=TermsConfig)
    hub: HubConfig = field(default_factory=HubConfig)
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)

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
        at_least("simsiam_variants.projector_gates", self.projector_gates, 1)
        self._check_components(batch)
        at_least("simsiam_variants.predictor_layers", self.predictor_layers, 1)
        at_least("simsiam_variants.predictor_experts", self.predictor_experts, 2)
        at_least("simsiam_variants.predictor_groups", self.predictor_groups, 2)
        at_least("simsiam_variants.predictor_blocks", self.predictor_blocks, 1)
        self._check_shape()
        at_least("simsiam_variants.backbone_lr_scale", self.backbone_lr_scale, 0)
        refuse_idle_norms(self)
        for options in (self.distance, self.target, self.bottleneck, self.clusters, self.terms):
            options.check()
        if self.target.gates != "none" and not self.stop_gradient:
            raise UserError(
                f"simsiam_variants.target.gates {self.target.gates} lets channels through the stop-gradient, "
                "and simsiam_variants.stop_gradient is false: leave one of them out"
            )
        self.columns.check(
            target_fraction=self.target.fraction, symmetric=self.symmetric, predictor=self.predictor
        )
        self.hub.check(batch, self.dim)
        beside = changed(self, "similarity", "distance", "stop_gradient")
        self.hub.check_beside([*beside, *(["target.gradient"] if self.target.gradient else [])])

    def _check_components(self, batch: int) -> None:
        """Refuses principal components without factors to set, or more of them than a batch has."""
        at_least("simsiam_variants.projector_pca_every", self.projector_pca_every, 1)
        if self.projector_pca_every != 1 and self.projector_pca != "refit":
            raise UserError(
                "simsiam_variants.projector_pca_every belongs to simsiam_variants.projector_pca refit, and "
                f"that is {self.projector_pca}: set that, or leave projector_pca_every out"
            )
        if self.projector_pca == "none":
            return
        if self.projector_rank is None:
            raise UserError(
                f"simsiam_variants.projector_pca {self.projector_pca} sets the factors that "
                "simsiam_variants.projector_rank makes: set that, as to 32, or leave projector_pca out"
            )
        if self.columns.own_heads == "all":
            raise UserError(
                f"simsiam_variants.projector_pca {self.projector_pca} knows one projector, and "
                "simsiam_variants.columns.heads all makes two: leave one of them out"
            )
        if self.projector_norm == "group-ws":
            raise UserError(
                f"simsiam_variants.projector_pca {self.projector_pca} sets weights that "
                "simsiam_variants.projector_norm group-ws standardises: leave one of them out"
            )
        if self.projector_rank >= 2 * batch:
            raise UserError(
                f"simsiam_variants.projector_rank {self.projector_rank} asks for more principal components "
                f"than two views of {batch} images have: lower it to {2 * batch - 1} or less, or raise "
                "optim.batch_size"
            )

    def _check_shape(self) -> None:
        """Refuses options of a predictor's shape that no predictor has, or that its width does not have."""
        for name in changed(self, "predictor_shape", "predictor_layers"):
            if self.predictor == "none":
                raise UserError(
                    f"simsiam_variants.{name} {getattr(self, name)} shapes a predictor, and "
                    "simsiam_variants.predictor is none: leave one of them out"
                )
        of_shape = {
            "predictor_experts": "experts",
            "predictor_groups": "attention",
            "predictor_blocks": "depth",
        }
        for name in changed(self, *of_shape):
            if self.predictor_shape != of_shape[name]:
                raise UserError(
                    f"simsiam_variants.{name} belongs to simsiam_variants.predictor_shape {of_shape[name]}, "
                    f"and that is {self.predictor_shape}: set that, or leave {name} out"
                )
        if self.predictor_shape == "attention" and self.dim % self.predictor_groups:
            raise UserError(
                f"simsiam_variants.predictor_groups {self.predictor_groups} does not divide the "
                f"{self.dim} channels of simsiam_variants.dim: choose a divisor"
            )

    @property
    def per_column(self) -> str | None:
        """The option that gives the columns of pairs networks of their own."""
        return self.columns.named

    @property
    def trunks(self) -> int:
        """1, or 2 for a backbone for each column of pairs."""
        return self.columns.trunks

    @property
    def needs_index(self) -> bool:
        """Whether an option keeps a value for every image."""
        return self.target.memory is not None or self.clusters.fraction > 0 or self.terms.labels > 0
