"""The projector g and the predictor h by their options; the defaults are those of the published code."""

from __future__ import annotations

from torch import nn

from siamtransfer.methods.parts.mlp import ACTIVATIONS, mlp
from siamtransfer.methods.parts.norms import Norm
from siamtransfer.methods.simsiam_variants.gates import ChannelGates
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.simsiam_variants.predictors import Experts, GatedDepth, GroupAttention, Residual

AFTER_PROJECTOR: dict[str, Norm] = {
    "none": "none",
    "hidden": "none",
    "default": "plain",
    "output-affine": "affine",
    "all": "plain",
}
"""The norm after the projector, by the value of the option batch_norm."""


def build_projector(features: int, config: SimSiamVariantsConfig) -> nn.Sequential:
    """g, from features h[N,D] to projections z[N,d]."""
    projector = mlp(
        [features] * config.projector_layers + [config.dim],
        hidden="none" if config.batch_norm == "none" else "affine",
        output=AFTER_PROJECTOR[config.batch_norm],
        activation=ACTIVATIONS[config.activation],
        rank=config.projector_rank,
        kind=config.projector_norm,
    )
    if AFTER_PROJECTOR[config.batch_norm] != "none" and config.projector_norm == "batch":
        # Batch norm removes this bias; the published code keeps it, frozen at its initial value. Layer and
        # group norm do not remove it, so there it is learned.
        projector[-2].bias.requires_grad_(False)
    if config.projector_gates is not None:
        last = max(k for k, layer in enumerate(projector) if isinstance(layer, nn.Linear))
        position = last - (config.projector_rank is not None)
        projector.insert(position, ChannelGates(features, config.projector_gates))
    return projector


def build_predictor(config: SimSiamVariantsConfig) -> nn.Module:
    """h, from projections z[N,d] to predictions p[N,d]."""
    if config.predictor == "none":
        return nn.Identity()
    d, bottleneck = config.dim, config.predictor_hidden or max(1, config.dim // 4)

    def build_mlp() -> nn.Module:
        return mlp(
            [d, *[bottleneck] * (config.predictor_layers - 1), d],
            hidden="none" if config.batch_norm == "none" else "affine",
            output="affine" if config.batch_norm == "all" else "none",
            activation=ACTIVATIONS[config.activation],
            kind=config.predictor_norm,
        )

    match config.predictor_shape:
        case "bottleneck":
            predictor = build_mlp()
        case "residual":
            predictor = Residual(build_mlp())
        case "experts":
            predictor = Experts([build_mlp() for _ in range(config.predictor_experts)], d)
        case "attention":
            predictor = GroupAttention(build_mlp(), d, config.predictor_groups)
        case "depth":
            predictor = GatedDepth([build_mlp() for _ in range(config.predictor_blocks)], d)
    return predictor.requires_grad_(config.predictor == "trained")
