"""The information bottleneck of simsiam-variants: its noise, its nats, and SimSiam as its limit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.small_simsiam import VIEWS, gradients, random_rows, small_variant

from siamtransfer.methods.simsiam_variants.bottleneck import Bottleneck, BottleneckConfig
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.utils.errors import UserError


def test_the_information_is_the_divergence_in_nats():
    bottleneck = Bottleneck(3, 2, BottleneckConfig(0.5))
    z, h = torch.tensor([[1.0, 2.0]]), torch.ones(1, 3)
    _, numbers = bottleneck([z], [h])
    # ½ [(1 + ¼ - 1 + 2 ln 2) + (4 + ¼ - 1 + 2 ln 2)]
    assert numbers["information"].item() == pytest.approx(1.75 + 2 * math.log(2))
    assert numbers["deviation"].item() == pytest.approx(0.5)
    with torch.no_grad():
        bottleneck.log_deviation.bias.copy_(torch.tensor([math.log(2), math.log(4)]))  # σ of 1 and 2
    _, numbers = bottleneck([z, 0 * z], [h, h])
    views = [(1 + 4 + 4 - 1 - 2 * math.log(2)) / 2, (4 - 1 - 2 * math.log(2)) / 2]
    assert numbers["information"].item() == pytest.approx(sum(views) / 2)
    assert numbers["deviation"].item() == pytest.approx(1.5)


def test_draws_have_their_means_and_deviations():
    bottleneck = Bottleneck(1, 2, BottleneckConfig(0.5)).double()
    with torch.no_grad():
        bottleneck.log_deviation.weight.copy_(torch.tensor([[0.0], [math.log(3)]]))
    z = torch.tensor([[3.0, -1.0]], dtype=torch.float64).expand(20000, 2)
    torch.manual_seed(0)
    (drawn,), _ = bottleneck([z], [torch.ones(20000, 1, dtype=torch.float64)])
    assert drawn.mean(dim=0).tolist() == pytest.approx([3, -1], abs=0.05)
    assert drawn.std(dim=0).tolist() == pytest.approx([0.5, 1.5], rel=0.03)
    assert abs(torch.corrcoef(drawn.T)[0, 1]) < 0.03


def test_without_noise_and_weight_it_is_simsiam():
    plain = small_variant()
    ours = small_variant(bottleneck=BottleneckConfig(deviation=1e-9))
    assert ours(VIEWS).loss.item() == pytest.approx(plain(VIEWS).loss.item(), rel=1e-8)
    theirs, found = gradients(plain), gradients(ours)
    for name, gradient in theirs.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9)


def test_predictions_see_draws_and_targets_and_monitors_see_means():
    method = small_variant(bottleneck=BottleneckConfig(deviation=0.5, weight=0.01))
    torch.manual_seed(5)
    output = method(VIEWS)
    h = [method.backbone(x) for x in VIEWS]
    z = [method.projector(x) for x in h]
    torch.manual_seed(5)
    s, numbers = method.bottleneck(z, h)
    assert all(torch.equal(ours, mean) for ours, mean in zip(output.projections, z, strict=True))
    p = [method.predictor(x) for x in s]
    pairs = method.distance(p[0], z[1]) / 2 + method.distance(p[1], z[0]) / 2
    assert output.loss.item() == pytest.approx((pairs + 0.01 * numbers["information"]).item(), rel=1e-12)
    assert output.numbers["simsiam/information"] == numbers["information"]
    assert output.numbers["simsiam/deviation"].item() == pytest.approx(0.5)


def test_the_weight_of_information_moves_deviations_towards_one():
    torch.manual_seed(0)
    bottleneck = Bottleneck(4, 3, BottleneckConfig(0.1)).double()
    h = random_rows(16, 4)
    _, numbers = bottleneck([torch.zeros(16, 3, dtype=torch.float64)], [h])
    numbers["information"].backward()
    # d/db of ½ (σ² - 1 - 2 ln σ) is σ² - 1.
    assert bottleneck.log_deviation.bias.grad.tolist() == pytest.approx([0.01 - 1] * 3)
    method = small_variant(bottleneck=BottleneckConfig(deviation=0.5, weight=0.01))
    assert [group.name for group in method.groups()] == ["encoder", "predictor", "bottleneck"]
    assert gradients(method)["bottleneck.log_deviation.weight"].abs().max() > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"deviation": 0}, r"deviation is 0, but must be above 0"),
        ({"deviation": 1, "weight": -1}, r"weight is -1, but must be at least 0"),
        (
            {"weight": 0.1},
            r"weight changes nothing without a bottleneck: set .*deviation, as to 0\.5, or",
        ),
    ],
)
def test_bottlenecks_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=r"simsiam_variants\.bottleneck\." + sentence):
        SimSiamVariantsConfig(bottleneck=BottleneckConfig(**options)).check(8)
