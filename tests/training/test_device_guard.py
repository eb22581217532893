"""The check on the device: equal to the one on the host, without a read, and with the same promise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_methods import SMALL, small, some_views
from support.small_runs import TINY, newest, on_ranks, rows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import Method, StepInfo
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.programs.pretrain import main
from siamtransfer.training.device_guard import DeviceGuard, refuse_late_guard
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step
from siamtransfer.utils.errors import UserError

ALONE = Runtime(torch.device("cpu"), torch.float32)
INDEX = torch.arange(16)


def updater_of(
    method: Method, optimizer: str = "sgd", *, late: bool = True, runtime: Runtime = ALONE
) -> Updater:
    model = runtime.distribute(method)
    built = build_optimizer(OptimConfig(name=optimizer, lr=0.05, batch_size=256), method.groups())
    return Updater(model, built, runtime.scaler(), runtime, DeviceGuard(built) if late else None)


def step_of(updater: Updater, views: list[Tensor], step: int, exit_status: int | None = None) -> Any:
    context, info = StepContext(step, 0.05, INDEX), StepInfo(step, 10, 5)
    return train_step(updater, views, context, info, exit_status=exit_status)


class HostReads(TorchDispatchMode):
    """Notes each operation whose result the host waits for: numbers, and shapes that depend on numbers.

    On the CPU `tolist` and `numpy` are no operations, and no method calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        name = str(operation).split(".")[1]
        masks = name in ("index", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in arguments[1]
        )
        if masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_linalg_eigh"):
            self.found.append(name)
        return operation(*arguments, **(named or {}))


@pytest.mark.parametrize("name", [name for name in SMALL if name != "simsiam-variants"])
def test_the_host_reads_nothing_between_forward_and_update(name: str) -> None:
    """SwAV's queue is read until it is full; DirectPred's eigenvectors follow the update."""
    after_it = ["_linalg_eigh"] if name == "directpred" else []
    updater = updater_of(small(name), late=True)
    for step in range(2):
        step_of(updater, some_views(step), step)
    updater.late = DeviceGuard(updater.optimizer)  # it has no step behind it whose report is to be read
    with HostReads() as reads:
        _, report = step_of(updater, some_views(2), 2)
    assert reads.found == after_it
    with HostReads() as reads:
        assert math.isfinite(report.loss)
    assert set(reads.found) == {"_local_scalar_dense"}


def test_the_guard_on_the_host_does_read() -> None:
    updater = updater_of(small("simsiam"), late=False)
    with HostReads() as reads:
        step_of(updater, some_views(), 0)
    assert set(reads.found) == {"_local_scalar_dense"}


@pytest.mark.parametrize(("name", "optimizer"), [("simsiam", "sgd"), ("byol", "lars"), ("dino", "adamw")])
def test_sound_steps_are_equal_to_the_bit(name: str, optimizer: str) -> None:
    found = []
    for late in (False, True):
        method = small(name)
        updater = updater_of(method, optimizer, late=late)
        losses = [step_of(updater, some_views(step), step)[1].loss for step in range(4)]
        found.append((losses, method.state_dict(), updater.optimizer.state_dict()["state"]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weights_and_optimizer_stay_those_before_a_bad_step(bad: int, optimizer: str) -> None:
    method = small("simsiam")
    updater = updater_of(method, optimizer)
    for step in range(bad):
        step_of(updater, some_views(step), step)
    state = [tensor.clone() for tensor in everything(updater)]
    assert updater.is_sound
    views = some_views(bad)
    views[0][3] = math.inf
    _, report = step_of(updater, views, bad)
    assert not updater.is_sound
    with pytest.raises(UserError, match=f"not finite at step {bad} "):
        print(report.loss)
    with pytest.raises(UserError, match=f"not finite at step {bad} .*sample indices"):
        step_of(updater, some_views(bad + 1), bad + 1)
    with pytest.raises(UserError, match=f"not finite at step {bad} "), updater.measuring():
        pass
    after = everything(updater)
    for old, new in zip(state, after, strict=False):  # a first step creates the optimizer's state
        assert torch.equal(old, new)
    assert all(torch.isfinite(tensor).all() for tensor in after)


def everything(updater: Updater) -> list[Tensor]:
    """The weights, then the tensors of the optimizer."""
    states = [value for state in updater.optimizer.state.values() for value in state.values()]
    return [*updater.model.parameters(), *states]


def of_two_ranks(runtime: Runtime) -> Any:
    """What rank 1's signal in step 1 and its bad view in step 3 do to both ranks."""
    method = small("simsiam")
    updater = updater_of(method, runtime=runtime)
    found: list[Any] = []
    for step in range(5):
        views = [view.chunk(runtime.world_size)[runtime.rank].clone() for view in some_views(step)]
        if step == 3 and runtime.rank == 1:
            views[0][0] = math.nan
        try:
            _, report = step_of(updater, views, step, 143 if step == 1 and runtime.rank == 1 else None)
        except UserError as error:
            found.append(str(error))
        else:
            found.append((report.exit_status, updater.is_sound))
    return found


def test_all_ranks_learn_of_a_signal_and_of_a_bad_step_at_the_same_step() -> None:
    ranks = on_ranks(of_two_ranks)
    expected = [(None, True), (None, True), (143, True), (None, False)]
    assert [found[:4] for found in ranks] == [expected, expected]
    assert all("not finite at step 3 " in found[4] for found in ranks)


def test_float16_is_refused() -> None:
    refuse_late_guard(ALONE)
    with pytest.raises(UserError, match=r"hardware\.guard device .* float16"):
        refuse_late_guard(Runtime(torch.device("cuda"), torch.float16))


def test_a_run_has_the_rows_of_the_guard_on_the_host_and_saves_nothing_bad(tmp_path: Path) -> None:
    numbers = []
    for guard in ("step", "device"):
        assert main([*TINY, f"--run.dir={tmp_path / guard}", f"--hardware.guard={guard}"]) is not None
        numbers.append(rows(tmp_path / guard))
    assert numbers[0] == numbers[1]
    torch.testing.assert_close(
        newest(tmp_path / "step")["model"], newest(tmp_path / "device")["model"], rtol=0, atol=0
    )
    bad = tmp_path / "bad"
    options = [f"--run.dir={bad}", "--hardware.guard=device", "--optim.lr=1e38", "--log.every=100"]
    with pytest.raises(UserError, match="not finite at step"):
        main([*TINY, *options, "--checkpoint.every_steps=1", "--monitor.health_every=0"])
    assert all(bool(torch.isfinite(t).all()) for t in newest(bad)["model"].values())
