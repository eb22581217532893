"""Learning rates against numbers of the published code (golden/schedules.json), and the rules between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from siamtransfer.errors import UserError
from siamtransfer.methods.method import ParameterGroup
from siamtransfer.optim import OptimConfig, build_optimizer, rate_at, set_rates

GOLDEN = json.loads((Path(__file__).parent / "golden" / "schedules.json").read_text())


def test_simsiam_rates_per_epoch_with_a_constant_predictor():
    config = OptimConfig(lr=0.1, batch=256, epochs=10)
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [ParameterGroup("encoder", weights[:1]), ParameterGroup("predictor", weights[1:], True)]
    optimizer = build_optimizer(config, groups)
    for step in range(70):
        set_rates(optimizer, config, step, steps_per_epoch=7)
        expected = GOLDEN["simsiam_per_epoch"]["values"][step // 7]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected, rel=1e-12)


def test_moco_v3_rates_per_step_with_warm_up():
    config = OptimConfig(lr=0.6, batch=256, epochs=6, warmup_epochs=2, schedule="cosine-step")
    ours = [rate_at(config, step, 10) for step in range(60)]
    assert ours == pytest.approx(GOLDEN["moco_v3_lr"]["values"], rel=1e-12, abs=1e-15)


def test_a_group_may_have_a_multiple_of_the_rate():
    config = OptimConfig(lr=0.1, batch=256, epochs=10)
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [
        ParameterGroup("a", parameters[:1], False, 3.0),
        ParameterGroup("b", parameters[1:], True, 10.0),
    ]
    optimizer = build_optimizer(config, groups)
    rate = set_rates(optimizer, config, 5, steps_per_epoch=1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([3 * rate, 1.0])
    assert rate < 0.1


def test_rate_scales_with_the_global_batch():
    assert OptimConfig(lr=0.05, batch=512).initial_rate == pytest.approx(0.1)


def test_weight_decay_reaches_biases_and_norms_with_sgd():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = build_optimizer(OptimConfig(lr=1, batch=256, weight_decay=0.5), [ParameterGroup("all", [p])])
    p.grad = torch.zeros(3)
    optimizer.step()
    assert p.tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("changes", "world", "images", "words"),
    [
        ({"batch": 512}, 1, 100, "--optim.batch 64"),
        ({"batch": 30}, 4, 100, "multiple of 4"),
        ({"batch": 8, "accumulate": 3}, 1, 100, "multiple of 3"),
        ({"batch": 4}, 4, 100, "batch norm"),
        ({"batch": 4, "epochs": 5, "warmup_epochs": 5}, 1, 100, "warmup_epochs"),
        ({"batch": 4, "epochs": 0}, 1, 100, "at least 1"),
        ({"batch": 4, "lr": -0.1}, 1, 100, "optim.lr is -0.1"),
        ({"batch": 4, "lr": float("nan")}, 1, 100, "optim.lr is nan"),
        ({"batch": 4, "weight_decay": float("inf")}, 1, 100, "optim.weight_decay is inf"),
    ],
)
def test_impossible_numbers_name_their_cure(changes, world, images, words):
    with pytest.raises(UserError, match=words):
        OptimConfig(**changes).check(world, images)
