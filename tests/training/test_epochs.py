"""The loop of trainings in epochs: notes, saved states, signals at any step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.training.epochs import train_epochs
from siamtransfer.training.guard import StepReport
from siamtransfer.training.saved_training import SavedTraining

ALONE = Runtime(torch.device("cpu"), torch.float32)
EPOCHS, PER_EPOCH = 3, 4


class Chain:
    """A training whose number depends on every step and its order."""

    loss_name, steps_per_epoch, progress_every = "loss", PER_EPOCH, PER_EPOCH

    def __init__(self, signal_at: int | None = None, number: int = signal.SIGTERM):
        self.value, self.signal_at, self.number = 1, signal_at, number
        self.steps: list[int] = []

    def samples(self, step: int) -> int:
        return 1

    def batches(self, start: int, steps: int) -> Iterator[int]:
        for step in range(start, steps):
            if step == self.signal_at:
                os.kill(os.getpid(), self.number)
            yield step

    def step(self, step: int, batch: int, exit_status: int | None) -> StepReport:
        assert step == batch
        self.steps.append(step)
        self.value = (31 * self.value + step) % 1_000_003
        return StepReport(0.5, True, True, exit_status)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def run(chain: Chain, path: Path | None, *, resume: bool = False) -> list[dict[str, float]]:
    saved = None if path is None else SavedTraining(path, {"of": "chain"}, resume=resume)
    return train_epochs(
        chain, EPOCHS, ALONE, after_epoch=lambda epoch: {"epoch": epoch, "value": chain.value}, saved=saved
    )


@pytest.mark.parametrize("step", range(EPOCHS * PER_EPOCH))
def test_a_signal_ends_the_step_and_the_rest_goes_on_as_if_there_had_been_none(
    step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed, stopped, resumed = Chain(), Chain(signal_at=step), Chain()
    notes = run(undisturbed, None)
    with pytest.raises(SystemExit) as ended:
        run(stopped, tmp_path / "chain.pth")
    assert ended.value.code == 128 + signal.SIGTERM
    assert stopped.steps == list(range(step + 1))
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"stopped on a signal after step {step + 1} of 12; go on with --resume"
    assert run(resumed, tmp_path / "chain.pth", resume=True) == notes
    assert resumed.steps == list(range(step + 1, 12))
    assert resumed.value == undisturbed.value


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_a_signal_ends_what_is_measured_after_an_epoch_and_it_is_measured_again(
    epoch: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed, stopped, resumed = Chain(), Chain(), Chain()
    notes = run(undisturbed, None)
    measured: list[int] = []

    def measure(now: int) -> dict[str, float]:
        if now == epoch:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(10)
        measured.append(now)
        return {"epoch": now, "value": stopped.value}

    saved = SavedTraining(tmp_path / "chain.pth", {"of": "chain"})
    with pytest.raises(SystemExit) as ended:
        train_epochs(stopped, EPOCHS, ALONE, after_epoch=measure, saved=saved)
    assert ended.value.code == 128 + signal.SIGHUP
    assert measured == list(range(epoch))
    step = PER_EPOCH * (epoch + 1)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"stopped on a signal after step {step} of 12; go on with --resume"
    assert run(resumed, tmp_path / "chain.pth", resume=True) == notes
    assert resumed.steps == list(range(step, 12))
    assert resumed.value == undisturbed.value


def test_ctrl_c_without_a_folder_keeps_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(Chain(signal_at=5, number=signal.SIGINT), None)
    assert ended.value.code == 128 + signal.SIGINT
    assert "after step 6 of 12; nothing is kept, for there is no --run folder" in capsys.readouterr().err


def test_a_state_from_before_states_had_steps_is_at_the_end_of_its_epochs(tmp_path: Path) -> None:
    undisturbed = Chain()
    notes = run(undisturbed, None)
    old = {"notes": notes[:2], "value": notes[1]["value"], "identity": {"of": "chain"}}
    torch.save(old, tmp_path / "chain.pth")
    resumed = Chain()
    assert run(resumed, tmp_path / "chain.pth", resume=True) == notes
    assert resumed.steps == [8, 9, 10, 11]


def test_a_finished_training_makes_no_more_steps(tmp_path: Path) -> None:
    notes = run(Chain(), tmp_path / "chain.pth")
    again = Chain()
    assert run(again, tmp_path / "chain.pth", resume=True) == notes
    assert again.steps == []
