"""simsiam-variants: SimSiam whose heads, similarity and targets are chosen by options, with extra losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.methods.base import Method, ParameterGroup, StepInfo, StepOutput, trainable
from siamtransfer.methods.parts.ema import momentum_copy, move
from siamtransfer.methods.parts.vit_init import freeze_patches
from siamtransfer.methods.simsiam import SimSiam
from siamtransfer.methods.simsiam_variants.bottleneck import Bottleneck
from siamtransfer.methods.simsiam_variants.clusters import PseudoLabels
from siamtransfer.methods.simsiam_variants.columns import of_view, with_own_norms, with_second
from siamtransfer.methods.simsiam_variants.extra_losses import (
    ContrastLoss,
    EncodedBatch,
    LabelLoss,
    RotationLoss,
)
from siamtransfer.methods.simsiam_variants.heads import build_predictor, build_projector
from siamtransfer.methods.simsiam_variants.hub import Codes, Whitening, build_loss
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.simsiam_variants.predictors import Experts, GatedDepth, GroupAttention
from siamtransfer.methods.simsiam_variants.pretexts import ColourLoss, JigsawLoss
from siamtransfer.methods.simsiam_variants.principal import set_factors
from siamtransfer.methods.simsiam_variants.similarities import Distance
from siamtransfer.methods.simsiam_variants.targets import StopGradient, TargetMemory, prediction_pairs
from siamtransfer.utils.errors import UserError


class SimSiamVariants(SimSiam):
    """L = mean of D(p_i, t_j) over pairs of views i ≠ j, + Σ w_k L_k over extra losses, with z = g(f(x)),
    p = h(z) and targets t; by default t = stop(z) and there is no extra loss."""

    Config = SimSiamVariantsConfig
    config: SimSiamVariantsConfig
    multi_crop = True
    mixes = False
    recordable = False  # fractions of targets are numbers of the host

    def __init__(self, backbone: Backbone, config: SimSiamVariantsConfig):
        Method.__init__(self, backbone, config)  # SimSiam's own heads would draw random numbers
        self.projector = build_projector(backbone.dim, config)
        self.whiten = Whitening(config.hub.whitening) if config.hub.whitening else nn.Identity()
        self.predictor = build_predictor(config)
        self.distance = Distance(config.similarity, config.distance)
        self.hub = build_loss(config.hub, config.dim)
        self.target = StopGradient(config.target, config.dim, stop=config.stop_gradient)
        self.target_fraction = config.target.fraction
        if self.target_fraction:
            self.target_backbone = momentum_copy(backbone)
            self.target_projector = momentum_copy(self.projector)
        self.terms = nn.ModuleDict()
        if config.terms.rotation:
            self.terms["rotation"] = RotationLoss(backbone.dim)
        if config.terms.jigsaw:
            self.terms["jigsaw"] = JigsawLoss(backbone.dim, config.terms)
        if config.terms.colour:
            self.terms["colour"] = ColourLoss(backbone, config.terms)
        if config.terms.contrast:
            self.terms["contrast"] = ContrastLoss(config.terms)
        if config.freeze_patches:
            freeze_patches(backbone)
        self.bottleneck: Bottleneck | None = None
        if config.bottleneck.deviation is not None:
            self.bottleneck = Bottleneck(backbone.dim, config.dim, config.bottleneck)
        if config.projector_pca != "none" and (config.projector_rank or 0) > backbone.dim:
            raise UserError(
                f"simsiam_variants.projector_rank {config.projector_rank} is more than the {backbone.dim} "
                "principal components of this backbone's features: lower it, or leave projector_pca out"
            )
        self.fit_due = False
        self.uses_index = config.needs_index
        self._add_columns()

    def _add_columns(self) -> None:
        """Makes what the second column of pairs has for itself, but for a trunk."""
        columns = self.config.columns
        if columns.own_heads == "all":
            self.second_projector = build_projector(self.backbone.dim, self.config)
        if columns.own_heads != "shared":
            self.second_predictor = build_predictor(self.config)
        if columns.batch_norm == "separate":
            self.second_backbone = with_own_norms(self.backbone)

    def add_trunk(self, backbone: Backbone) -> None:
        if self.config.freeze_patches:
            freeze_patches(backbone)
        self.second_backbone = backbone

    def prepare(self, images: int, labels: Tensor | None) -> None:
        config = self.config
        if config.target.memory is not None:
            self.memory = TargetMemory(images, config.dim, config.target.memory)
        if config.clusters.fraction:
            self.clusters = PseudoLabels(images, self.backbone.dim, config.clusters)
        if config.terms.labels:
            self.terms["labels"] = LabelLoss(self.backbone.dim, labels, config.terms)

    def forward(self, views: list[Tensor], index: Tensor | None = None) -> StepOutput:
        """Two or more views [N,3,S,S], the global ones first -> loss; for cosine similarity without extra
        losses it is in [-1, 1], and -1 is full agreement."""
        h = [of_view(self, "backbone", view)(x) for view, x in enumerate(views)]
        self.fit_components(h)
        z = [self.whiten(of_view(self, "projector", view)(x)) for view, x in enumerate(h)]
        s, of_bottleneck = (z, {}) if self.bottleneck is None else self.bottleneck(z, h)
        p = [of_view(self, "predictor", view)(x) for view, x in enumerate(s)]
        t = self.targets(views, h, z, index)
        pairs = prediction_pairs(
            t, len(views), mean=self.config.target.views == "mean", symmetric=self.config.symmetric
        )
        if self.hub is None:
            loss = torch.stack([self.distance(p[i], target) for i, target in pairs]).mean()
        else:
            loss = self.hub(p, pairs, t)
        batch = EncodedBatch(self.backbone, views, h, p, t, index)
        terms = {name: term(batch) for name, term in self.terms.items()}
        for name, term in terms.items():
            loss = loss + getattr(self.config.terms, name) * term
        if self.bottleneck is not None:
            loss = loss + self.bottleneck.weight * of_bottleneck["information"]
            terms |= of_bottleneck
        return StepOutput(loss, [x.detach() for x in z], self.numbers(z, terms))

    def targets(
        self, views: list[Tensor], h: list[Tensor], z: list[Tensor], index: Tensor | None
    ) -> list[Tensor]:
        """t[N,d] of every global view; by default its projection behind the stop-gradient."""
        z = [projection for projection, x in zip(z, views, strict=True) if x.shape[2:] == views[0].shape[2:]]
        t = [self.target(projection) for projection in z]
        if self.target_fraction:
            with torch.no_grad():
                second = [self.target_projector(self.target_backbone(x)) for x in views[: len(z)]]
                second = [self.whiten(projection) for projection in second]
            t = [torch.lerp(first, t2, self.target_fraction) for first, t2 in zip(t, second, strict=True)]
        if self.config.target.memory is not None:
            t = self.memory(t, index)
        if self.config.clusters.fraction:
            t = self.clusters(t, h[0], index)
        self.target.update_spread(torch.cat(z))
        if self.target.gated:
            self.target.update_gates(z[0], z[1])
        return t

    def fit_components(self, h: list[Tensor]) -> None:
        """Sets the projector's factors from the features h[N,D] of every view, in the steps where that is
        due."""
        if not self.fit_due:
            return
        self.fit_due = False  # once in a step, also with several micro-batches
        projectors: list[nn.Module] = [self.projector]
        if self.config.target.fraction:
            projectors.append(self.target_projector)
        set_factors(projectors, h)

    @torch.no_grad()
    def numbers(self, z: list[Tensor], terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scalars to log besides the loss."""
        numbers = {f"simsiam/{name}": term.detach() for name, term in terms.items()}
        if self.config.target.spread is not None:
            numbers["simsiam/target_gradient"] = torch.tensor(self.target.fraction)
        if self.target.gated:
            numbers["simsiam/target_gates"] = self.target.gates.mean()
        if self.config.clusters.fraction:
            numbers |= {f"simsiam/{name}": number for name, number in self.clusters.numbers().items()}
        if isinstance(self.predictor, Experts | GroupAttention | GatedDepth):
            of_predictor = self.predictor.numbers(z[0])
            numbers |= {f"simsiam/{name}": number for name, number in of_predictor.items()}
        return numbers

    def before_forward(self, info: StepInfo) -> None:
        self.target_fraction = self.config.target.fraction_at(info)
        every = self.config.projector_pca_every * info.steps_per_epoch
        self.fit_due = {
            "none": False,
            "start": info.step == 0,
            "refit": info.step % every == 0,
        }[self.config.projector_pca]
        if isinstance(self.hub, Codes):
            self.hub.normalise()
        if self.config.clusters.fraction:
            self.clusters.before_forward(info)

    def after_update(self, info: StepInfo) -> None:
        target = self.config.target
        if target.fraction and (info.step + 1) % target.every == 0:
            move(self.target_backbone, self.backbone, target.momentum)
            move(self.target_projector, self.projector, target.momentum)

    def groups(self) -> list[ParameterGroup]:
        encoder, predictor = super().groups()
        encoder = with_second(encoder, self, "backbone", "projector")
        predictor = with_second(predictor, self, "predictor")
        encoders = [encoder]
        if self.config.backbone_lr_scale != 1:
            scale = self.config.backbone_lr_scale
            trunk = ParameterGroup("backbone", trainable(self.backbone), lr_scale=scale)
            heads = ParameterGroup("projector", trainable(self.projector))
            encoders = [with_second(trunk, self, "backbone"), with_second(heads, self, "projector")]
        weights = ParameterGroup("weights of similarities", trainable(self.distance))
        terms = ParameterGroup("terms", trainable(self.terms), lr_scale=self.config.terms.lr_scale)
        prototypes = ParameterGroup("prototypes", [] if self.hub is None else trainable(self.hub))
        noise = ParameterGroup("bottleneck", [] if self.bottleneck is None else trainable(self.bottleneck))
        groups = (*encoders, predictor, weights, terms, prototypes, noise)
        return [group for group in groups if group.parameters]
