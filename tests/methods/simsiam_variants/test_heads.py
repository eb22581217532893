"""Projectors and predictors of simsiam-variants, and which of their parameters train how fast."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.golden_methods import TinyBackbone
from support.small_simsiam import gradients, random_rows, small_variant
from torch import nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.methods.parts.mlp import ACTIVATIONS
from siamtransfer.methods.simsiam_variants.model import SimSiamVariants
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.utils.errors import UserError


def linear_widths(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


def test_layers_rank_and_activation():
    method = small_variant(predictor_layers=3, projector_rank=4, activation="silu", projector_layers=2)
    assert linear_widths(method.predictor) == [(12, 3), (3, 3), (3, 12)]
    assert linear_widths(method.projector) == [(16, 16), (16, 4), (4, 12)]
    assert [type(layer).__name__ for layer in method.projector] == [
        "Linear", "BatchNorm1d", "SiLU", "Linear", "Linear", "BatchNorm1d",
    ]  # fmt: skip
    assert method.projector[-2].bias.requires_grad is False
    h = random_rows(40, 16)
    assert torch.linalg.matrix_rank(method.projector(h) - method.projector(h).mean(dim=0), rtol=1e-9) == 4
    gradients(method)
    assert linear_widths(small_variant(predictor_layers=1).predictor) == [(12, 12)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_stands_between_layers_only(name: Any):
    method = small_variant(activation=name)
    kind = type(ACTIVATIONS[name]())
    counts = [sum(type(layer) is kind for layer in head) for head in (method.projector, method.predictor)]
    assert counts == [2, 1]


def test_a_backbone_may_learn_at_a_rate_of_its_own():
    method = small_variant(backbone_lr_scale=0.1)
    groups = {group.name: group for group in method.groups()}
    assert list(groups) == ["backbone", "projector", "predictor"]
    assert groups["backbone"].lr_scale == 0.1
    grouped = [id(p) for group in groups.values() for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "size"), [("test_vit", 160), ("test_convnext", 32)])
def test_transformers_and_convnext_train(name: str, size: int):
    torch.manual_seed(0)
    method = SimSiamVariants(
        build_backbone(name), SimSiamVariantsConfig(dim=16, freeze_patches=name == "test_vit")
    )
    out = method(list(torch.randn(2, 3, 3, size, size)))
    out.loss.backward()
    assert -1 <= out.loss.item() <= 1
    still = {key for key, p in method.backbone.model.named_parameters() if p.grad is None}
    assert still == ({"patch_embed.proj.weight", "patch_embed.proj.bias"} if name == "test_vit" else set())
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in method.projector)


def test_only_a_transformer_has_patches_to_freeze():
    with pytest.raises(UserError, match=r"freeze_patches is for a ViT's patch embedding"):
        small_variant(freeze_patches=True)


NORMS = {  # affine BN in g, plain BN in g, affine BN in h (table 3 of the paper)
    "none": (0, 0, 0),
    "hidden": (2, 0, 1),
    "default": (2, 1, 1),
    "output-affine": (3, 0, 1),
    "all": (2, 1, 2),
}


@pytest.mark.parametrize("places", NORMS)
def test_batch_norm_stands_where_table_3_says(places):
    method = SimSiamVariants(TinyBackbone(), SimSiamVariantsConfig(dim=32, batch_norm=places))

    def count(module: nn.Module, affine: bool) -> int:
        return sum(isinstance(m, nn.BatchNorm1d) and m.affine == affine for m in module.modules())

    assert (
        count(method.projector, True),
        count(method.projector, False),
        count(method.predictor, True),
    ) == NORMS[places]
    hidden_bias = method.projector[0].bias is not None
    assert hidden_bias == (places == "none")


@pytest.mark.parametrize(("norm", "learned"), [("batch", False), ("layer", True), ("group-ws", True)])
def test_the_last_bias_is_learned_where_the_norm_after_it_keeps_it(norm, learned):
    method = SimSiamVariants(TinyBackbone(), SimSiamVariantsConfig(dim=32, projector_norm=norm))
    assert method.projector[-2].bias.requires_grad is learned
    h = random_rows(20, 16).float()
    before = method.projector(h)
    with torch.no_grad():
        method.projector[-2].bias.add_(torch.linspace(0, 3, 32))
    moved = (method.projector(h) - before).abs().max().item()
    assert moved > 0.1 if learned else moved < 1e-4


@pytest.mark.parametrize(("predictor", "trained"), [("trained", True), ("fixed", False), ("none", False)])
def test_predictor_switch(predictor, trained):
    method = SimSiamVariants(TinyBackbone(), SimSiamVariantsConfig(dim=32, predictor=predictor))
    assert isinstance(method.predictor, nn.Identity) == (predictor == "none")
    assert any(group.name == "predictor" for group in method.groups()) == trained
    grouped = [p for group in method.groups() for p in group.parameters]
    assert {id(p) for p in grouped} == {id(p) for p in method.parameters() if p.requires_grad}
    assert len(grouped) == len({id(p) for p in grouped})
