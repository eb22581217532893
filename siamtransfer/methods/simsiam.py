"""SimSiam (Chen and He, Exploring Simple Siamese Representation Learning, arXiv 2011.10566).

Two views of an image, one network: the prediction from one view should point where the other view's
projection points. No negatives, no momentum encoder; the stop-gradient on the target is what keeps the
network from answering the same for every image.

What options put in the place of the paper's parts has a file each: simsiam_heads.py, similarity.py,
targets.py, pseudo_labels.py; terms beside its loss are in auxiliary.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamtransfer.methods.base import Method, ParameterGroup, StepInfo, StepOutput, trainable
from siamtransfer.methods.parts.ema import momentum_copy, move
from siamtransfer.methods.parts.vit_init import freeze_patches
from siamtransfer.methods.simsiam_variants.clusters import PseudoLabels
from siamtransfer.methods.simsiam_variants.extra_losses import Contrast, Encoded, Labels, Rotation
from siamtransfer.methods.simsiam_variants.heads import Experts, build_predictor, build_projector
from siamtransfer.methods.simsiam_variants.options import SimSiamConfig
from siamtransfer.methods.simsiam_variants.similarities import Distance
from siamtransfer.methods.simsiam_variants.targets import Memory, StopGradient, aims

__all__ = ["SimSiam", "SimSiamConfig"]


class SimSiam(Method):
    """L = ½ D(p1, stop(z2)) + ½ D(p2, stop(z1)) with z = g(f(x)), p = h(z)."""

    def __init__(self, backbone: nn.Module, config: SimSiamConfig):
        super().__init__(backbone)
        self.config = config
        self.features = int(backbone.dim)  # type: ignore[arg-type]
        self.projector = build_projector(self.features, config)
        self.predictor = build_predictor(config)
        self.distance = Distance(config.similarity, config.distance)
        self.target = StopGradient(config.target, stop=config.stop_gradient)
        self.share = config.target.share
        if self.share:
            self.target_backbone = momentum_copy(backbone)
            self.target_projector = momentum_copy(self.projector)
        self.terms = nn.ModuleDict()
        if config.terms.rotation:
            self.terms["rotation"] = Rotation(self.features)
        if config.terms.contrast:
            self.terms["contrast"] = Contrast(config.terms)
        if config.freeze_patches:
            freeze_patches(backbone)
        self.uses_index = config.needs_index

    def prepare(self, images: int, labels: Tensor | None) -> None:
        config = self.config
        if config.target.memory is not None:
            self.memory = Memory(images, config.dim, config.target.memory)
        if config.clusters.share:
            self.clusters = PseudoLabels(images, self.features, config.clusters)
        if config.terms.labels:
            self.terms["labels"] = Labels(self.features, labels, config.terms)

    def forward(self, views: list[Tensor], index: Tensor | None = None) -> StepOutput:
        """Two or more views [N,3,S,S], the global ones first -> loss, for cosine similarity without further
        terms in [-1, 1] (-1 is full agreement)."""
        h = [self.backbone(x) for x in views]
        z = [self.projector(one) for one in h]
        p = [self.predictor(one) for one in z]
        t = self.targets(views, h, z, index)
        each, symmetric = self.config.target.views == "each", self.config.symmetric
        pairs = aims(t, len(views), each=each, symmetric=symmetric)
        loss = torch.stack([self.distance(p[i], target) for i, target in pairs]).mean()
        batch = Encoded(self.backbone, views, h, p, t, index)
        terms = {name: term(batch) for name, term in self.terms.items()}
        for name, term in terms.items():
            loss = loss + getattr(self.config.terms, name) * term
        return StepOutput(loss, [one.detach() for one in z], self.numbers(z, terms))

    def targets(
        self, views: list[Tensor], h: list[Tensor], z: list[Tensor], index: Tensor | None
    ) -> list[Tensor]:
        """t[N,d] of every global view: its projection behind the stop-gradient, unless options say else."""
        z = [one for one, x in zip(z, views, strict=True) if x.shape == views[0].shape]
        t = [self.target(one) for one in z]
        if self.share:
            with torch.no_grad():
                second = [self.target_projector(self.target_backbone(x)) for x in views[: len(z)]]
            t = [torch.lerp(one, other, self.share) for one, other in zip(t, second, strict=True)]
        if self.config.target.memory is not None:
            t = self.memory(t, index)
        if self.config.clusters.share:
            t = self.clusters(t, h[0], index)
        self.target.watch(torch.cat(z))
        return t

    @torch.no_grad()
    def numbers(self, z: list[Tensor], terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """What there is to watch besides the loss."""
        found = {f"simsiam/{name}": term.detach() for name, term in terms.items()}
        if self.config.target.spread is not None:
            found["simsiam/target_gradient"] = torch.tensor(self.target.share)
        if self.config.clusters.share:
            found["simsiam/cluster_agreement"] = self.clusters.agreement
        if isinstance(self.predictor, Experts):
            found["simsiam/expert_usage"] = self.predictor.usage(z[0])
        return found

    def before_forward(self, info: StepInfo) -> None:
        self.share = self.config.target.share_at(info)
        if self.config.clusters.share:
            self.clusters.before_forward(info)

    def after_update(self, info: StepInfo) -> None:
        target = self.config.target
        if target.share and (info.step + 1) % target.every == 0:
            move(self.target_backbone, self.backbone, target.momentum)
            move(self.target_projector, self.projector, target.momentum)

    def groups(self) -> list[ParameterGroup]:
        config = self.config
        backbone, projector = trainable(self.backbone), trainable(self.projector)
        encoder = [ParameterGroup("encoder", backbone + projector)]
        if config.backbone_rate_scale != 1:
            encoder = [
                ParameterGroup("backbone", backbone, lr_scale=config.backbone_rate_scale),
                ParameterGroup("projector", projector),
            ]
        groups = [
            *encoder,
            ParameterGroup(
                "predictor",
                trainable(self.predictor),
                config.predictor_rate == "constant",
                config.predictor_rate_scale,
            ),
            ParameterGroup("weights of similarities", trainable(self.distance)),
            ParameterGroup("terms", trainable(self.terms), lr_scale=config.terms.lr_scale),
        ]
        return [group for group in groups if group.parameters]
