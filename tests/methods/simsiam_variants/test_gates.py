"""Gates per channel of simsiam-variants: in the projector, and for the gradient that a target passes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from support.small_simsiam import VIEWS, gradients, random_rows, small_variant
from torch import nn

from siamtransfer.methods.simsiam_variants.gates import ChannelGates, channel_agreement
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.simsiam_variants.targets import StopGradient, TargetConfig
from siamtransfer.utils.errors import UserError


def test_gates_open_by_what_all_channels_say():
    gates = ChannelGates(2, 1)
    x = torch.tensor([[1.0, 2.0], [-4.0, 2.0]])
    assert gates(x).tolist() == (x / 2).tolist()
    with torch.no_grad():
        gates.squeeze.weight.fill_(1)
        gates.squeeze.bias.zero_()
        gates.excite.weight.copy_(torch.tensor([[math.log(2)], [-math.log(2)]]))
    # relu(1 + 2) = 3: σ(3 ln 2) = 8/9 and σ(-3 ln 2) = 1/9; relu(-2) = 0: one half.
    torch.testing.assert_close(gates(x), torch.tensor([[8 / 9, 2 / 9], [-2.0, 1.0]]))


def test_gates_stand_before_the_projectors_last_layer_and_change_nothing_at_the_start():
    for rank in (None, 4):
        method = small_variant(projector_gates=3, projector_rank=rank)
        kinds = [type(layer).__name__ for layer in method.projector]
        assert kinds[-3 - (rank is not None) :][:2] == ["ChannelGates", "Linear"]
        position = kinds.index("ChannelGates")
        without = nn.Sequential(*[layer for k, layer in enumerate(method.projector) if k != position])
        without[-2].bias.data.mul_(2)  # the gates halve its inputs, and not its bias
        h = random_rows(8, 16)
        theirs = without(h)
        without[-2].bias.data.div_(2)
        # But for batch norm's epsilon, which counts more beside smaller variances.
        torch.testing.assert_close(method.projector(h), theirs, rtol=2e-3, atol=2e-3)
        method(VIEWS).loss.backward()
        assert method.projector[position].excite.weight.grad.abs().max() > 0
        assert method.projector[-2].bias.requires_grad is False


def test_agreement_is_the_correlation_of_each_channel():
    first, second = random_rows(30, 4, 1), random_rows(30, 4, 2)
    second[:, 0] = 3 * first[:, 0] + 1
    second[:, 1] = -first[:, 1]
    second[:, 2] = 5  # constant
    ours = channel_agreement(first, second)
    expected = np.corrcoef(first[:, 3], second[:, 3])[0, 1]
    assert ours.tolist() == pytest.approx([1, 0, 0, max(0, expected)])
    mixed = first + second
    assert channel_agreement(first, mixed)[3].item() == pytest.approx(
        np.corrcoef(first[:, 3], mixed[:, 3])[0, 1], rel=1e-10
    )


def test_each_channel_passes_its_share_of_the_gradient():
    target = StopGradient(TargetConfig(gradient=0.5, gates="agreement"), 2, stop=True).double()
    target.gates.copy_(torch.tensor([0.4, 1.0]))
    z = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    t = target(z)
    assert t.tolist() == z.tolist()
    target.gates.zero_()  # moves before the backward pass, as in a step
    (t * torch.tensor([[10.0, 100.0]])).sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[pytest.approx(2.0), pytest.approx(50.0)]]


def test_gates_are_a_moving_average_and_open_gates_are_none():
    method = small_variant(target=TargetConfig(gradient=0.3, gates="agreement"))
    closed = gradients(method)
    plain = gradients(small_variant())
    assert all(torch.equal(closed[name], gradient) for name, gradient in plain.items())
    output = method(VIEWS)
    agreement = channel_agreement(*output.projections)
    torch.testing.assert_close(method.target.gates, 0.19 * agreement)
    assert output.numbers["simsiam/target_gates"].item() == pytest.approx(0.19 * agreement.mean().item())
    opened = small_variant(target=TargetConfig(gradient=0.3, gates="agreement"))
    opened.target.gates.fill_(1)
    theirs = gradients(small_variant(target=TargetConfig(gradient=0.3)))
    for name, gradient in gradients(opened).items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": TargetConfig(gates="agreement")}, r"target\.gates agreement says in which .* raise that"),
        (
            {"target": TargetConfig(gates="agreement", gradient=0.1), "stop_gradient": False},
            r"target\.gates agreement lets channels through .*stop_gradient is false: leave one of them out",
        ),
        ({"projector_gates": 0}, r"projector_gates is 0, but must be at least 1"),
    ],
)
def test_gates_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=r"simsiam_variants\." + sentence):
        SimSiamVariantsConfig(**options).check(8)
