"""Faults 11 and 12: a loss or gradient that is not finite stops the run before the update, on every rank."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import TINY, all_finite, differences, launch_ranks, newest, rows, steps_kept
from torch import Tensor, nn

import siamtransfer.programs.pretrain as program
from siamtransfer.pretraining import state
from siamtransfer.training import step as step_module
from siamtransfer.utils.errors import UserError
from siamtransfer.views.sampler import StepSampler

STEP = 5
EVERY_STEP = ["--checkpoint.every_steps=1"]


def spoil(what: str, step: int = STEP) -> None:
    """Makes the loss, or one entry of one gradient, of `step` not finite."""
    original, calls = step_module.forward_backward, -1

    def forward_backward(model: nn.Module, *arguments: Any) -> tuple[Tensor, Any]:
        nonlocal calls
        calls += 1
        loss, out = original(model, *arguments)
        if calls == step and what == "loss":
            loss = loss * float("nan")
        if calls == step and what == "gradient":
            gradient = list(model.parameters())[3].grad
            assert gradient is not None
            gradient[(0,) * gradient.ndim] = float("inf")
        return loss, out

    step_module.forward_backward = forward_backward  # type: ignore[assignment]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_fault_11_stops_before_the_update(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, methods = tmp_path / "run", []
    build = state.build_method

    def build_and_note(config: Any, *networks: Any) -> Any:
        methods.append(build(config, *networks))
        return methods[-1]

    monkeypatch.setattr(state, "build_method", build_and_note)
    monkeypatch.setattr(step_module, "forward_backward", step_module.forward_backward)  # undone after `spoil`
    spoil(what)
    with pytest.raises(UserError) as caught:
        program.main([*TINY, *EVERY_STEP, f"--run.dir={folder}"])
    message = str(caught.value)
    assert message.startswith(
        f"{'the loss' if what == 'loss' else 'a gradient'} is not finite at step {STEP} "
    )
    assert (
        "learning rate 0.01875;" in message
    )  # 0.8 x 8 / 256, three quarters of it in the second of three epochs
    assert named_indices(message) == indices_of(STEP)
    saved = newest(folder)
    assert steps_kept(folder) == [STEP - 1, STEP]
    assert all_finite(saved)
    assert (
        differences({n: p.detach() for n, p in methods[0].named_parameters()}, parameters(methods[0], saved))
        == []
    )
    assert max(row["step"] for row in rows(folder)) == STEP


def named_indices(message: str) -> list[int]:
    found = re.search(r"sample indices \[([\d, ]+)\]", message)
    assert found
    return [int(word) for word in found[1].split(",")]


def indices_of(step: int, rank: int = 0, world_size: int = 1) -> list[int]:
    tickets = list(StepSampler(40, 8, 15, seed=0, rank=rank, world_size=world_size))[step]
    return [index for _, index in tickets]


def parameters(method: nn.Module, saved: dict[str, Any]) -> dict[str, Tensor]:
    return {name: saved["model"][name] for name, _ in method.named_parameters()}


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_fault_12_on_one_of_two_ranks_stops_both(what: str, tmp_path: Path) -> None:
    ranks = launch_ranks(tmp_path / "run", *EVERY_STEP, faults={1: functools.partial(spoil, what)})
    assert [rank.wait(60) for rank in ranks] == [2, 2], [rank.said for rank in ranks]
    for number, rank in enumerate(ranks):
        message = rank.said.splitlines()[-1]
        assert f"is not finite at step {STEP} " in message
        assert named_indices(message) == indices_of(STEP, number, 2)
    if what == "loss":
        assert "(on another rank;" in ranks[0].said
        assert "(here;" in ranks[1].said
    saved = newest(tmp_path / "run")
    assert saved["progress"]["step"] == STEP
    assert all_finite(saved)


def test_a_loss_that_is_not_finite_is_not_a_matter_of_the_images_alone(tmp_path: Path) -> None:
    """A rate that is far too high ends in the same one sentence, whatever overflows first."""
    with pytest.raises(UserError, match=r"is not finite at step \d+ .*lower optim\.lr"):
        program.main([*TINY, f"--run.dir={tmp_path / 'run'}", "--optim.lr=1e30", "--optim.weight_decay=1"])
    assert not torch.is_anomaly_enabled()
