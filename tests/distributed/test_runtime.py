"""Device, precision, seeds and the wish to stop (ranks: test_distributed.py)."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

from siamtransfer.distributed import collectives
from siamtransfer.distributed import runtime as runtimes
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine with that many GPUs, as far as choosing one goes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


def test_the_cpu_computes_in_float32_unless_told_otherwise() -> None:
    with runtimes.start_runtime("cpu") as runtime:
        assert (runtime.device, runtime.precision, runtime.world_size, runtime.is_main) == (
            CPU,
            "float32",
            1,
            True,
        )
    with runtimes.start_runtime("cpu", "bfloat16") as runtime, runtime.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_threads_are_as_asked_until_the_end() -> None:
    before = torch.get_num_threads()
    with runtimes.start_runtime("cpu", threads=before + 1):
        assert torch.get_num_threads() == before + 1
        with runtimes.start_runtime("cpu"):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("gpus", [0], indirect=True)
@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [
        ("cuda", "auto", "--hardware.device cpu"),
        ("mps", "auto", "not supported"),
        ("gpu", "auto", "is no device"),
        ("cpu", "float16", "float16 needs a GPU"),
    ],
)
def test_what_this_machine_cannot_do_is_one_sentence(
    device: str, precision: str, words: str, gpus: None
) -> None:
    with pytest.raises(UserError, match=words), runtimes.start_runtime(device, precision):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_each_rank_takes_its_own_gpu(gpus: None) -> None:
    find = runtimes._find_device
    assert find("auto", 0, 1) == torch.device("cuda", 0)
    assert find("cuda:1", 0, 1) == torch.device("cuda", 1)
    assert [find("cuda", local, 2).index for local in (0, 1)] == [0, 1]
    assert find("cuda:0", 1, 2).index == 1, "with several ranks a number would put them all on one"
    assert find("cpu", 1, 2) == CPU
    with pytest.raises(UserError, match="GPU 2 was asked for and this machine has 2"):
        find("cuda", 2, 3)


@pytest.mark.parametrize("gpus", [1], indirect=True)
def test_a_gpu_that_emulates_bfloat16_computes_in_float16_unless_told_otherwise(
    gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, find = torch.device("cuda", 0), runtimes._find_dtype
    assert find("auto", gpu) == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert find("auto", gpu) == torch.float16
    assert find("bfloat16", gpu) == torch.bfloat16


def test_alone_nothing_is_exchanged() -> None:
    runtime, tensor = Runtime(CPU, torch.float32), torch.ones(2)
    assert torch.equal(collectives.all_reduce(tensor), tensor)
    assert torch.equal(collectives.all_gather(tensor), tensor)
    assert collectives.all_reduce_mean(tensor).tolist() == [1, 1]
    assert collectives.broadcast_object(tensor) is tensor
    assert collectives.all_gather_object([1, 2]) == [1, 2]
    collectives.barrier()
    model = torch.nn.BatchNorm1d(2)
    assert runtime.distribute(model) is model


def test_the_scaler_is_for_float16_only() -> None:
    enabled = [
        dtype
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        if Runtime(CPU, dtype).scaler().is_enabled()
    ]
    assert enabled == [torch.float16]


def test_a_steps_random_numbers_are_its_own() -> None:
    drawn = {}
    for key in [(seed, step, rank) for seed in (0, 1) for step in (0, 1, 2) for rank in (0, 1)]:
        runtimes.seed_step(*key)
        drawn[key] = float(torch.rand(()))
    assert len(set(drawn.values())) == len(drawn)
    torch.rand(100)
    runtimes.seed_step(1, 2, 1)
    assert float(torch.rand(())) == drawn[1, 2, 1]


def test_processors_are_those_that_may_be_used() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert runtimes.cpu_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert runtimes.cpu_count() == len(allowed)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_becomes_a_wish_and_the_first_one_counts(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        assert stop.exit_status is None
        os.kill(os.getpid(), number)
        assert stop.exit_status == status
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.exit_status == status
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_handlers_return_also_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), StopSignal():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_signals_are_left_alone() -> None:
    """Python lets only the main thread handle them; a run in a notebook's thread must still start."""
    found = []

    def work() -> None:
        with StopSignal() as stop:
            found.append(stop.exit_status)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_out_that_is_none_is_refused(minutes: float) -> None:
    with (
        pytest.raises(UserError, match="timeout_minutes"),
        runtimes.start_runtime("cpu", timeout_minutes=minutes),
    ):
        pass
