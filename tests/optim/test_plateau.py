"""The schedule that waits for the loss: when the rate falls, whom it reaches, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from siamtransfer.methods.base import ParameterGroup
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.optim.plateau import Plateau
from siamtransfer.pretraining import logger
from siamtransfer.pretraining.schedule import Schedule
from siamtransfer.training.guard import StepReport
from siamtransfer.utils.errors import UserError

PLATEAU: dict[str, Any] = {"schedule": "plateau", "lr_scaling": "none", "lr": 0.4, "batch_size": 4}


def shares(losses: list[float], **options: Any) -> list[float]:
    """The share after each of so many steps, two of which are an epoch."""
    plateau, config = Plateau(), OptimConfig(**{**PLATEAU, **options})
    found = []
    for done, loss in enumerate(losses, 1):
        plateau.follow(loss, config, ends_epoch=done % 2 == 0)
        found.append(plateau.share)
    return found


def test_the_rate_falls_after_epochs_without_a_lower_mean():
    # Means of epochs: -0.5, -0.6, -0.6, -0.55, -0.61, -0.6005, -0.62.
    losses = [-0.4, -0.6, -0.7, -0.5, -0.6, -0.6, -0.1, -1.0, -0.61, -0.61, -0.601, -0.6, -0.62, -0.62]
    assert shares(losses, plateau_patience=2, plateau_factor=0.5)[1::2] == [1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    assert shares(losses, plateau_patience=1, plateau_factor=0.5)[1::2] == [
        1, 1, 0.5, 0.25, 0.25, 0.125, 0.125,
    ]  # fmt: skip
    # With a margin of 0.05 the last three epochs are no better than -0.6.
    assert shares(losses, plateau_patience=2, plateau_factor=0.1, plateau_margin=0.05)[1::2] == [
        1, 1, 1, 0.1, 0.1, pytest.approx(0.01), pytest.approx(0.01),
    ]  # fmt: skip


def test_a_count_begins_anew_after_a_fall():
    assert shares([0.0, 0.0] * 6, plateau_patience=2, plateau_factor=0.1)[1::2] == [
        1, 1, 0.1, 0.1, pytest.approx(0.01), pytest.approx(0.01),
    ]  # fmt: skip


def test_the_share_reaches_what_follows_the_schedule_and_warm_up_comes_first():
    config = OptimConfig(**PLATEAU, epochs=6, warmup_epochs=1, plateau_patience=1, plateau_factor=0.5)
    schedule = Schedule(config, images=8, world_size=1)
    weights = [torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2)]
    groups = [ParameterGroup("encoder", weights[:1]), ParameterGroup("predictor", weights[1:], True)]
    optimizer, plateau = build_optimizer(config, groups), Plateau()
    rates = []
    for step in range(12):
        lr = schedule.set_lr(optimizer, step, plateau)
        assert [group["lr"] for group in optimizer.param_groups] == [lr, 0.4]
        rates.append(lr)
        schedule.follow(plateau, step + 1, StepReport(1.0, True, True, None))
    # Two steps of warm-up; the first epoch after it sets the mark; each later one halves the rate.
    assert rates == pytest.approx([0, 0.2, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05])


def test_other_schedules_remember_nothing():
    config = OptimConfig(**{**PLATEAU, "schedule": "constant"}, epochs=4)
    schedule, plateau = Schedule(config, images=8, world_size=1), Plateau()
    for step in range(8):
        schedule.follow(plateau, step + 1, StepReport(1.0, True, True, None))
    assert plateau == Plateau()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"plateau_factor": 0.5},
            r"optim\.plateau_factor belongs to optim\.schedule plateau, and that is",
        ),
        ({"plateau_patience": 2}, r"optim\.plateau_patience belongs to .* or leave plateau_patience out"),
        ({"plateau_margin": 0.1}, r"optim\.plateau_margin belongs to "),
        (
            {"schedule": "plateau", "plateau_factor": 0.0},
            r"plateau_factor is 0\.0, but must be above 0",
        ),
        ({"schedule": "plateau", "plateau_factor": 2.0}, r"optim\.plateau_factor is 2\.0, .* from 0 to 1"),
        ({"schedule": "plateau", "plateau_factor": 1.0}, r"optim\.plateau_factor is 1.* to lower the rate"),
        ({"schedule": "plateau", "plateau_patience": 0}, r"optim\.plateau_patience is 0, .* at least 1"),
        ({"schedule": "plateau", "plateau_margin": -1.0}, r"optim\.plateau_margin is -1\.0, .* at least 0"),
    ],
)
def test_plateaus_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=sentence):
        OptimConfig(batch_size=4, **options).check(1, 100)


def test_a_run_that_gets_more_epochs_is_told_the_rate_that_has_fallen(monkeypatch: pytest.MonkeyPatch):
    config = OptimConfig(**PLATEAU, epochs=4)
    state = SimpleNamespace(
        step=4,
        plateau=Plateau(share=0.25),
        extensions=[{"step": 4, "epochs_before": 2, "epochs": 4}],
        config=SimpleNamespace(optim=config),
    )
    said: list[str] = []
    monkeypatch.setattr(logger, "say", said.append)
    log: Any = SimpleNamespace(state=state, schedule=Schedule(config, images=8, world_size=1))
    logger.Logger._introduce_extension(log)
    assert "the learning rate was 0.1 and goes on at 0.1." in said[0]
