"""The next batch on a side stream: which calls are made, in which order, and that no number changes.

A recorder stands for CUDA's streams, so all of it runs on the CPU; overlap and speed need a GPU.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import assert_same_run, complete, launch, newest, stop_at
from torch import Tensor

from siamtransfer.config import refuse_differences
from siamtransfer.utils.errors import UserError
from siamtransfer.views.dataset import ViewBatch
from siamtransfer.views.prefetch import Prefetcher, side_stream

BATCHES = 3


class Recorder:
    """Writes down what is asked of streams, events and tensors."""

    device = torch.device("cpu")

    def __init__(self, name: str, calls: list[str]):
        self.name, self.calls, self.events = name, calls, 0

    def record_event(self) -> str:
        self.calls.append(f"{self.name} records event {self.events}")
        self.events += 1
        return f"event {self.events - 1}"

    def wait_event(self, event: str) -> None:
        self.calls.append(f"{self.name} waits for {event}")


def install(patch: Any = None) -> tuple[list[str], Any]:
    """Recorders in the place of CUDA's streams; returns the calls and the side stream."""
    calls: list[str] = []
    side, compute = Recorder("side", calls), Recorder("compute", calls)
    current = [compute]

    @contextlib.contextmanager
    def on(stream: Recorder) -> Iterator[None]:
        current.append(stream)
        try:
            yield
        finally:
            current.pop()

    def record_stream(tensor: Tensor, stream: Recorder) -> None:
        calls.append(f"memory {tensor.flatten()[0]:.0f} waits for {stream.name}")

    setattribute = setattr if patch is None else patch.setattr
    setattribute(torch.cuda, "stream", on)
    setattribute(torch.cuda, "current_stream", lambda device=None: current[-1])
    setattribute(torch.Tensor, "record_stream", record_stream)
    return calls, side


def batches(calls: list[str], fails_at: int = BATCHES) -> Iterator[ViewBatch]:
    for number in range(BATCHES):
        calls.append(f"load {number}")
        if number == fails_at:
            raise UserError("no image can be read")
        yield ViewBatch([torch.full((2, 3, 1, 1), number)], np.empty((2, 1, 0)), torch.arange(2), [])


def paint(calls: list[str], batch: ViewBatch) -> list[Tensor]:
    stream: Any = torch.cuda.current_stream()
    calls.append(f"paint {batch.crops[0].flatten()[0]} on {stream.name}")
    return batch.crops


def steps(prefetcher: Prefetcher, calls: list[str]) -> None:
    for number, (batch, views) in enumerate(prefetcher):
        assert views[0] is batch.crops[0]
        calls.append(f"launch step {number}")
        prefetcher.begin_next()
        calls.append(f"step {number} is done")


def test_the_next_batch_is_painted_during_the_step_and_handed_over_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, side = install(monkeypatch)
    steps(Prefetcher(batches(calls), partial(paint, calls), side), calls)
    assert calls == [
        *("load 0", "paint 0 on side", "side records event 0"),
        *("compute waits for event 0", "memory 0 waits for compute"),
        *("launch step 0", "load 1", "paint 1 on side", "side records event 1", "step 0 is done"),
        *("compute waits for event 1", "memory 1 waits for compute"),
        *("launch step 1", "load 2", "paint 2 on side", "side records event 2", "step 1 is done"),
        *("compute waits for event 2", "memory 2 waits for compute"),
        *("launch step 2", "side records event 3", "step 2 is done"),
    ]


def test_without_a_stream_each_batch_is_painted_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, _ = install(monkeypatch)
    steps(Prefetcher(batches(calls), partial(paint, calls)), calls)
    turn = ("load {0}", "paint {0} on compute", "launch step {0}", "step {0} is done")
    assert calls == [call.format(number) for number in range(BATCHES) for call in turn]
    assert side_stream(torch.device("cpu")) is None


def test_an_error_of_the_loader_lets_the_step_before_it_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, side = install(monkeypatch)
    with pytest.raises(UserError, match="no image"):
        steps(Prefetcher(batches(calls, fails_at=1), partial(paint, calls), side), calls)
    assert calls[-2:] == ["load 1", "step 0 is done"]


def test_a_loop_that_is_left_lets_the_loader_go(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, side = install(monkeypatch)
    source = batches(calls)
    alive = weakref.ref(source)
    prefetcher = Prefetcher(source, partial(paint, calls), side)
    del source
    for _ in prefetcher:
        prefetcher.begin_next()
        break
    gc.collect()
    assert alive() is None


def with_recorders(then: Any = None) -> None:
    """A fault (see small_runs) that makes a run on the CPU paint ahead, on a recorder."""
    from siamtransfer.pretraining import images

    _, side = install()
    images.side_stream = lambda device: side
    if then is not None:
        then()


def test_a_run_that_paints_ahead_stops_and_goes_on_to_the_same_bit(tmp_path: Path) -> None:
    options = ["--data.workers=1", "--monitor.knn_every=0"]
    complete(tmp_path / "plain", *options)
    options.append("--hardware.prefetch")
    stopped = launch(tmp_path / "ahead", *options, fault=partial(with_recorders, stop_at(7)))
    assert stopped.wait() == 128 + signal.SIGTERM
    complete(tmp_path / "ahead", *options, "--resume", fault=with_recorders)
    free = ("config.run.dir", "config.hardware.prefetch")
    assert_same_run(tmp_path / "ahead", tmp_path / "plain", free=free)
    before, now = (newest(tmp_path / name)["config"] for name in ("plain", "ahead"))
    assert now["hardware"]["prefetch"]
    now["run"] = before["run"]
    refuse_differences(before, now)
