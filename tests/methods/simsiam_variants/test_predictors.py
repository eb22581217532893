"""Predictors of simsiam-variants that adapt to the image, against numbers computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from support.small_simsiam import VIEWS, gradients, random_rows, small_variant
from torch import Tensor, nn

from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.simsiam_variants.predictors import Experts, GatedDepth, GroupAttention, Residual
from siamtransfer.utils.errors import UserError


class Times(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_a_residual_predictor_adds():
    method = small_variant(predictor_shape="residual")
    z = random_rows(8, 12)
    assert isinstance(method.predictor, Residual)
    torch.testing.assert_close(method.predictor(z) - z, method.predictor.mlp(z))


def test_experts_are_weighted_by_their_gates():
    method = small_variant(predictor_shape="experts", predictor_experts=3)
    predictor, z = method.predictor, random_rows(8, 12)
    assert isinstance(predictor, Experts)
    scores = (z @ predictor.gate.weight.T + predictor.gate.bias).detach().numpy()
    gates = special.softmax(scores, axis=1)
    expected = sum(torch.from_numpy(gates[:, k : k + 1]) * predictor.experts[k](z) for k in range(3))
    torch.testing.assert_close(predictor(z), expected)
    expected_usage = stats.entropy(gates.mean(axis=0)) / np.log(3)
    assert predictor.numbers(z)["expert_usage"].item() == pytest.approx(expected_usage, rel=1e-5)


def test_equal_experts_are_one():
    method = small_variant(predictor_shape="experts")
    for expert in method.predictor.experts:
        expert.load_state_dict(method.predictor.experts[0].state_dict())
    z = random_rows(8, 12)
    torch.testing.assert_close(method.predictor(z), method.predictor.experts[0](z))


def test_a_group_takes_from_the_others_what_its_query_finds():
    predictor = GroupAttention(nn.Identity(), 2, groups=2)
    with torch.no_grad():
        predictor.maps.weight.fill_(1)  # query, key and value of a group are its channel
        predictor.offsets.zero_()
        z = torch.tensor([[0.0, 1.0]])
        assert torch.equal(predictor(z), z)  # O starts at zero
        predictor.output.weight.fill_(1)
        share = math.e / (1 + math.e)  # softmax(0, 1)
        assert predictor(z).tolist() == [[pytest.approx(0.5), pytest.approx(1 + share)]]
    entropies = [math.log(2), stats.entropy([share, 1 - share])]
    spread = predictor.numbers(z)["attention_spread"].item()
    assert spread == pytest.approx(np.mean(entropies) / math.log(2), rel=1e-5)


def test_offsets_tell_equal_groups_apart():
    torch.manual_seed(0)
    predictor = GroupAttention(nn.Identity(), 12, groups=3)
    nn.init.ones_(predictor.output.weight)
    moved = (predictor(torch.ones(1, 12)) - 1).view(3, 4)
    assert (moved - moved[0]).abs().amax(dim=1)[1:].min() > 1e-3
    with torch.no_grad():
        predictor.offsets.zero_()
    moved = (predictor(torch.ones(1, 12)) - 1).view(3, 4)
    torch.testing.assert_close(moved, moved[:1].expand(3, 4))


def test_an_image_chooses_its_depth():
    predictor = GatedDepth([Times(1), Times(2)], 1)
    z = torch.ones(2, 1)
    assert predictor(z).tolist() == [[3.0], [3.0]]  # 1 + 1/2, then 1.5 + 3/2
    assert {name: n.item() for name, n in predictor.numbers(z).items()} == {"depth": 1, "depth_spread": 0}
    with torch.no_grad():  # σ(ln 3) = 3/4; the second row leaves both blocks out
        predictor.gate.bias.fill_(math.log(3))
        predictor.gate.weight.fill_(-100)
    z = torch.tensor([[0.0], [1.0]])
    numbers = predictor.numbers(z)
    assert predictor(z).tolist() == [[0.0], [1.0]]
    assert numbers["depth"].item() == pytest.approx(0.75)
    assert numbers["depth_spread"].item() == pytest.approx(0.75)
    with torch.no_grad():
        predictor.gate.weight.zero_()
    assert predictor(torch.ones(1, 1)).item() == pytest.approx(1.75 * 2.5)


SHAPES: list[tuple[Any, set[str]]] = [
    ({"predictor_shape": "experts"}, {"expert_usage"}),
    ({"predictor_shape": "attention", "predictor_groups": 3}, {"attention_spread"}),
    ({"predictor_shape": "depth", "predictor_blocks": 2}, {"depth", "depth_spread"}),
]


@pytest.mark.parametrize(("options", "numbers"), SHAPES)
def test_every_part_of_a_shape_learns_and_its_numbers_are_logged(options: Any, numbers: set[str]):
    method = small_variant(**options)
    assert method(VIEWS).numbers.keys() == {f"simsiam/{name}" for name in numbers}
    with torch.no_grad():
        for p in method.predictor.parameters():  # what starts at zero lets no gradient through
            p.add_(0.01 * torch.randn_like(p))
    found = gradients(method)
    learning = [name for name in found if name.startswith("predictor.")]
    assert len(learning) == len([*method.predictor.parameters()])
    assert all(found[name].abs().max() > 0 for name in learning)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"predictor_shape": "attention", "predictor_groups": 5},
            r"predictor_groups 5 does not divide the 12 .*choose a divisor",
        ),
        (
            {"predictor_groups": 4},
            r"predictor_groups belongs to simsiam_variants\.predictor_shape attention, and that is bottl",
        ),
        ({"predictor_experts": 3}, r"predictor_experts belongs to .* experts, and that is bottleneck: set "),
        ({"predictor_shape": "experts", "predictor_blocks": 2}, r"predictor_blocks belongs to .* depth, and"),
        ({"predictor_shape": "depth", "predictor_blocks": 0}, r"predictor_blocks is 0, but must be at least"),
        (
            {"predictor": "none", "predictor_shape": "depth"},
            r"predictor_shape depth shapes a predictor, and .* is none: leave one of them out",
        ),
        ({"predictor": "none", "predictor_layers": 3}, r"predictor_layers 3 shapes a predictor, and "),
    ],
)
def test_shapes_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=r"simsiam_variants\." + sentence):
        SimSiamVariantsConfig(dim=12, **options).check(8)
