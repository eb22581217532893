"""The projector g and the predictor h by their options; the defaults are those of the published code."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from siamtransfer.methods.parts.mlp import ACTIVATIONS, Norm, mlp
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig

AFTER_PROJECTOR: dict[str, Norm] = {
    "none": "none",
    "hidden": "none",
    "default": "plain",
    "output-affine": "affine",
    "all": "plain",
}
"""The batch norm after the projector, by the value of the option batch_norm."""


def build_projector(features: int, config: SimSiamVariantsConfig) -> nn.Sequential:
    """g, from features h[N,D] to projections z[N,d]."""
    projector = mlp(
        [features] * config.projector_layers + [config.dim],
        hidden="none" if config.batch_norm == "none" else "affine",
        output=AFTER_PROJECTOR[config.batch_norm],
        activation=ACTIVATIONS[config.activation],
        rank=config.projector_rank,
    )
    if AFTER_PROJECTOR[config.batch_norm] != "none":
        # Batch norm removes this bias; the published code keeps it, frozen at its initial value.
        projector[-2].bias.requires_grad_(False)
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
        )

    match config.predictor_shape:
        case "bottleneck":
            predictor = build_mlp()
        case "residual":
            predictor = Residual(build_mlp())
        case "experts":
            predictor = Experts([build_mlp() for _ in range(config.predictor_experts)], d)
    return predictor.requires_grad_(config.predictor == "trained")


class Residual(nn.Module):
    """p = z + h(z): the predictor learns only the difference between the views (ours)."""

    def __init__(self, mlp: nn.Module):
        super().__init__()
        self.mlp = mlp

    def forward(self, z: Tensor) -> Tensor:
        return z + self.mlp(z)


class Experts(nn.Module):
    """p = Σ_k a_k h_k(z) with gates a = softmax(W z): the predictor adapts to the image (ours, a mixture of
    experts after Jacobs et al. 1991)."""

    def __init__(self, mlps: list[nn.Module], dim: int):
        super().__init__()
        self.experts = nn.ModuleList(mlps)
        self.gate = nn.Linear(dim, len(mlps))

    def gates(self, z: Tensor) -> Tensor:
        """The weight of each expert for each row, [N,K]; each row sums to 1."""
        return self.gate(z).softmax(dim=1)

    def forward(self, z: Tensor) -> Tensor:
        outputs = torch.stack([expert(z) for expert in self.experts], dim=2)  # [N, d, K]
        return (outputs * self.gates(z)[:, None]).sum(dim=2)

    @torch.no_grad()
    def usage(self, z: Tensor) -> Tensor:
        """The entropy of the mean gate, from 0 (one expert has all the weight) to 1 (all have equal
        weight)."""
        mean = self.gates(z).float().mean(dim=0)
        return torch.special.entr(mean).sum() / math.log(len(mean))
