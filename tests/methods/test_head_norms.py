"""Heads without batch statistics, and the options that say so."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from support.small_methods import small, some_views
from support.thorough import more
from torch import Tensor, nn

from siamtransfer.backbones.norms import StandardisedLinear
from siamtransfer.methods import METHODS
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.norms import HeadNorm
from siamtransfer.utils.errors import UserError

WITHOUT_STATISTICS: dict[str, dict[str, Any]] = {
    "byol": {"projector_norm": "group-ws", "predictor_norm": "layer"},
    "simclr": {"projector_norm": "group"},
    "simsiam-variants": {"projector_norm": "layer", "predictor_norm": "none"},
}


def kinds_in(head: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in head.modules() if layer is not head]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("batch", ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]),
        ("layer", ["Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm"]),
        ("group", ["Linear", "GroupNorm", "ReLU", "Linear", "GroupNorm"]),
        ("group-ws", ["StandardisedLinear", "GroupNorm", "ReLU", "StandardisedLinear", "GroupNorm"]),
        ("none", ["Linear", "ReLU", "Linear"]),
    ],
)
def test_the_norms_of_a_head(kind: HeadNorm, expected: list[str]) -> None:
    head = mlp([6, 8, 8], output="plain", kind=kind)
    assert kinds_in(head) == expected
    assert (head[0].bias is None) == (kind != "none")
    if kind != "none":
        affine = [bool(list(layer.parameters())) for layer in (head[1], head[4])]
        assert affine == [True, False]


def test_the_last_layer_keeps_its_weights_where_no_norm_follows() -> None:
    head = mlp([6, 8, 8], kind="group-ws")
    assert isinstance(head[0], StandardisedLinear)
    assert type(head[-1]) is nn.Linear


def rows_of_a_head(head: nn.Module, z: Tensor) -> Tensor:
    with torch.no_grad():
        return head(z[:1]) - head(z)[:1]


@pytest.mark.parametrize("name", WITHOUT_STATISTICS)
def test_heads_do_not_look_at_other_images(name: str) -> None:
    method = small(name, **WITHOUT_STATISTICS[name]).train()
    heads = [child for word, child in method.named_children() if word in ("projector", "predictor")]
    assert heads
    for head in heads:
        first = next(layer for layer in head.modules() if isinstance(layer, nn.Linear))
        z = torch.randn(5, first.in_features, dtype=torch.float64)
        assert float(rows_of_a_head(head, z).abs().max()) < 1e-12
    loss = method(some_views()).loss
    loss.backward()
    assert all(
        float(p.grad.abs().max()) > 0
        for p in method.get_submodule("projector").parameters()
        if p.grad is not None
    )


@pytest.mark.parametrize("place", ["projector", "predictor"])
@pytest.mark.parametrize("kind", ["none", *(more(kind) for kind in get_args(HeadNorm) if kind != "none")])
def test_the_two_heads_are_chosen_one_by_one(place: str, kind: HeadNorm) -> None:
    for name in ("byol", "simsiam-variants"):
        usual, changed = small(name), small(name, **{f"{place}_norm": kind})
        for head in ("projector", "predictor"):
            same = kinds_in(usual.get_submodule(head)) == kinds_in(changed.get_submodule(head))
            assert same == (head != place or kind == "batch"), (name, head)


def test_the_target_of_byol_has_the_same_norms() -> None:
    method = small("byol", projector_norm="layer")
    assert kinds_in(method.get_submodule("target_projector")) == kinds_in(method.get_submodule("projector"))
    assert "LayerNorm" in kinds_in(method.get_submodule("target_projector"))


def test_simclr_without_norms_has_none() -> None:
    method = small("simclr", projector_norm="none", output_norm="none")
    assert kinds_in(method.get_submodule("projector")) == ["Linear", "ReLU", "Linear"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("simclr", {"projector_norm": "none"}, "simclr.output_norm is scale: set simclr.output_norm none"),
        (
            "simclr",
            {"projector_norm": "layer", "output_norm": "none", "projector_layers": 1},
            "projector_norm layer changes nothing",
        ),
        (
            "simsiam-variants",
            {"batch_norm": "none", "predictor_norm": "layer"},
            "batch_norm none leaves no norm that simsiam_variants.predictor_norm layer could be",
        ),
        (
            "simsiam-variants",
            {"batch_norm": "output-affine", "projector_norm": "none"},
            "puts a norm after the projector, and simsiam_variants.projector_norm none takes it away",
        ),
        (
            "simsiam-variants",
            {"batch_norm": "all", "predictor_norm": "none"},
            "puts a norm after the predictor",
        ),
        ("simsiam-variants", {"predictor": "none", "predictor_norm": "group"}, "predictor none has no norm"),
        ("simsiam-variants", {"predictor_layers": 1, "predictor_norm": "group"}, "a predictor of one layer"),
    ],
)
def test_options_that_contradict_each_other(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        METHODS[name].Config(**options).check(16)


def test_options_that_go_together_are_taken() -> None:
    METHODS["simclr"].Config(projector_norm="none", output_norm="none").check(16)  # type: ignore[call-arg]
    variants: Any = METHODS["simsiam-variants"].Config
    variants(batch_norm="hidden", predictor_norm="none").check(16)
    variants(batch_norm="all", predictor_norm="layer", projector_norm="none").check(16)
    variants(batch_norm="all", predictor_norm="layer", predictor_layers=1).check(16)
