"""Slow weights around optimizers, and rectified Adam: hand cases, and a resumption to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from siamtransfer.methods.base import ParameterGroup
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer, load_optimizer, set_lr
from siamtransfer.training.device_guard import DeviceGuard
from siamtransfer.training.guard import StepContext
from siamtransfer.utils.errors import UserError


def built(weights: list[Tensor], **options: Any) -> torch.optim.Optimizer:
    settings = {"lr": 1.0, "lr_scaling": "none", "momentum": 0, "weight_decay": 0, "schedule": "constant"}
    config = OptimConfig(**{**settings, **options})
    optimizer = build_optimizer(config, [ParameterGroup("all", weights)])  # type: ignore[arg-type]
    set_lr(optimizer, config, 0, 10)
    return optimizer


def step(optimizer: torch.optim.Optimizer, gradient: float) -> list[float]:
    weights = optimizer.param_groups[0]["params"]
    for weight in weights:
        weight.grad = torch.full_like(weight, gradient)
    optimizer.step()
    return [weight.flatten()[0].item() for weight in weights]


def parameter(value: float = 0.0, size: int = 1) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.full((size, 1), value, dtype=torch.float64))


def test_training_goes_on_from_slow_weights():
    optimizer = built([parameter()], lookahead=2)
    # -1, then -2: half of the way from 0 is -1; -2, then -3: half of the way from -1 is -2.
    assert [step(optimizer, 1)[0] for _ in range(6)] == [-1, -1, -2, -2, -3, -3]
    quarter = built([parameter()], lookahead=2, lookahead_share=0.25)
    assert [step(quarter, 1)[0] for _ in range(4)] == [-1, -0.5, -1.5, -1]
    whole = built([parameter()], lookahead=1, lookahead_share=1.0)
    assert [step(whole, 1)[0] for _ in range(3)] == [-1, -2, -3]


def test_momentum_stays_with_the_fast_weights():
    optimizer = built([parameter()], lookahead=2, momentum=0.5)
    # Updates 1, 1.5, 1.75, 1.875.
    assert [step(optimizer, 1)[0] for _ in range(4)] == [-1, -1.25, -3, -3.0625]


def test_a_parameter_that_begins_later_has_slow_weights_of_its_own():
    first, later = parameter(), parameter(5.0)
    optimizer = built([first, later], lookahead=3)
    for expected in (
        [-1, 5],
        [-2, 4],
        [-1.5, 4],
    ):  # slow weights 0 and 5, from which the later one moved by 2
        first.grad = torch.ones_like(first)
        later.grad = None if expected[1] == 5 else torch.ones_like(later)
        optimizer.step()
        assert [first.item(), later.item()] == expected


RULES = [{"name": "sgd", "momentum": 0.9}, {"name": "adamw"}, {"name": "radam"}, {"name": "lars"}]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["name"])
def test_a_resumed_optimizer_goes_on_to_the_bit(rule: dict[str, Any]):
    def run(steps: range, state: Any = None, start: Tensor | None = None) -> tuple[Tensor, Any]:
        weight = torch.nn.Parameter(torch.ones(3, 4) if start is None else start.clone())
        optimizer = built([weight], lookahead=4, lr=0.1, weight_decay=0.01, **rule)
        if state is not None:
            load_optimizer(optimizer, state)
        for number in steps:
            weight.grad = torch.randn(3, 4, generator=torch.Generator().manual_seed(number))
            optimizer.step()
        return weight.detach(), copy.deepcopy(optimizer.state_dict())

    whole, _ = run(range(14))
    half, state = run(range(6))  # between two moves of the slow weights
    assert {"slow_weight"} <= state["state"][0].keys()
    assert state["param_groups"][0]["lookahead_steps"] == 6
    assert torch.equal(run(range(6, 14), state, half)[0], whole)
    plain = built([torch.nn.Parameter(torch.ones(3, 4))], **rule)
    assert "lookahead_steps" not in plain.state_dict()["param_groups"][0]


def test_the_devices_guard_takes_slow_weights_back():
    weight = parameter()
    optimizer = built([weight], lookahead=2)
    layer = torch.nn.ParameterList([weight])
    guard = DeviceGuard(optimizer)
    for number, loss in enumerate((1.0, float("nan"))):
        weight.grad = torch.ones_like(weight)
        guard.check(torch.tensor(loss), layer, StepContext(number, 1.0), None)
        guard.update()
    assert weight.item() == -1
    assert optimizer.state[weight]["slow_weight"].item() == 0
    with pytest.raises(UserError, match="finite"):
        guard.settle()


def test_a_step_that_the_scaler_leaves_out_does_not_count():
    weight = torch.nn.Parameter(torch.zeros(1, 1))
    optimizer = built([weight], lookahead=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for gradient in (1.0, float("inf"), 1.0):
        weight.grad = None
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.param_groups[0]["lookahead_steps"] == 2
    assert weight.item() < 0


def test_rectified_adam_moves_as_its_paper_says():
    optimizer = built([parameter(1.0)], name="radam", lr=0.1, weight_decay=0.5)
    # While the length of the average is at most 5 (5 steps at β2 = 0.999) it is momentum: here the mean
    # gradient 2. The weight decay is decoupled: w ← (1 - 0.1 · 0.5) w - 0.1 · 2.
    expected = 1.0
    for _ in range(5):
        expected = 0.95 * expected - 0.2
        assert step(optimizer, 2.0)[0] == pytest.approx(expected, rel=1e-9)
    # From the sixth step on the gradient's size is divided out: rectification r_6 times 1.
    beta = 0.999
    longest = 2 / (1 - beta) - 1
    length = longest - 2 * 6 * beta**6 / (1 - beta**6)
    r = ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
    assert step(optimizer, 2.0)[0] == pytest.approx(0.95 * expected - 0.1 * r, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lookahead": 0}, r"optim\.lookahead is 0, but must be at least 1"),
        (
            {"lookahead": 5, "lookahead_share": 1.5},
            r"lookahead_share is 1\.5, but must be from 0 to 1",
        ),
        ({"lookahead": 5, "lookahead_share": 0.0}, r"optim\.lookahead_share is 0\.0, but must be above 0"),
        (
            {"lookahead_share": 0.8},
            r"lookahead_share changes nothing without slow weights: set optim",
        ),
    ],
)
def test_slow_weights_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=sentence):
        OptimConfig(batch_size=4, **options).check(1, 100)
