"""Small training runs in processes of their own, faults to inject into them, and what they leave behind.

A process is forked from a server that has imported everything (see warm.py), so starting one takes
milliseconds instead of the seconds that `import torch` needs; it can be signalled and killed like any.
"""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from siamtransfer.data.scenes.scenes import DEFAULT_COUNTS
from support import paths

ROOT = paths.ROOT
TINY = ["--config", str(paths.SUPPORT / "tiny.yaml")]
STEPS = 15
"""Steps of a run by tiny.yaml: 3 epochs of 5."""


def images_of(root: Path) -> list[str]:
    """The options that make a run read the class folders under `root` instead of the embedded scenes."""
    return ["--data.name=folder", f"--data.root={root}", "--data.size=null", "--data.count=null"]


Fault = Callable[[], None]
"""Called in the new process before the program starts; picklable, as `functools.partial` of a function."""


@dataclass
class Run:
    """A running or finished `pretrain/main.py`."""

    process: Any
    folder: Path
    out: Path
    err: Path

    def wait(self, seconds: float = 100) -> int:
        """The exit status, minus the signal's number when one killed it; fails when it takes too long."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"the run did not end within {seconds} s; it said:\n{self.said}")
        return self.process.exitcode

    @property
    def said(self) -> str:
        """Everything on stderr so far."""
        return self.err.read_text()

    @property
    def record(self) -> dict[str, Any]:
        """The JSON document on stdout's last line."""
        return json.loads(self.out.read_text().splitlines()[-1])


def launch(
    folder: Path, *options: str, fault: Fault | None = None, rank: int = 0, world_size: int = 1, port: int = 0
) -> Run:
    """Starts a run by tiny.yaml and `options` in the run folder `folder`, as one of `world_size` ranks."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.parent.glob(f"{folder.name}.*.err")))
    out, err = (folder.parent / f"{folder.name}.{number}.{end}" for end in ("out", "err"))
    err.touch()
    environment = {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    if world_size > 1:
        environment |= rank_variables(rank, world_size, port)
    argv = [*TINY, f"--run.dir={folder}", *options]
    process = start_process(_program, argv, str(out), str(err), environment, fault)
    return Run(process, folder, out, err)


_started: list[Any] = []


def start_process(work: Callable[..., None], *arguments: Any) -> Any:
    """Starts `work(*arguments)` in a process of the server's, which `kill_leftovers` ends. Rendered sets have
    as many scenes there as here (see the fixture `few_test_scenes`)."""
    process = context().Process(target=_begin, args=(dict(DEFAULT_COUNTS), work, arguments))
    process.start()
    _started.append(process)
    return process


def kill_leftovers() -> None:
    """Ends the runs that a failed test did not wait for."""
    for process in _started:
        if process.is_alive():
            process.kill()
        process.join()
    _started.clear()


def launch_ranks(
    folder: Path, *options: str, faults: Mapping[int, Fault] | None = None, world_size: int = 2
) -> list[Run]:
    """Starts `world_size` ranks of one run, with a fault for some of them."""
    faults, port = faults or {}, _free_port()
    return [
        launch(folder, *options, fault=faults.get(rank), rank=rank, world_size=world_size, port=port)
        for rank in range(world_size)
    ]


def on_ranks(
    work: Callable[..., Any], *arguments: Any, world_size: int = 2, timeout_minutes: float | None = None
) -> list[Any]:
    """What `work(runtime, *arguments)` returns on each of `world_size` gloo ranks, as torch.save can carry
    it. With `timeout_minutes` a UserError counts as a result too, as its class name and its text."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder) / str(rank) for rank in range(world_size)]
        processes = [
            start_process(
                _work,
                *(work, arguments, str(result), rank_variables(rank, world_size, port), timeout_minutes),
            )
            for rank, result in enumerate(results)
        ]
        for process in processes:
            process.join(100)
        assert [process.exitcode for process in processes] == [0] * world_size
        return [torch.load(result, weights_only=False) for result in results]


def rank_variables(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {key: str(value) for key, value in (ranks | address).items()}


def complete(folder: Path, *options: str, fault: Fault | None = None) -> Run:
    """A run that has to end well."""
    run = launch(folder, *options, fault=fault)
    assert run.wait() == 0, run.said
    return run


def run_here(folder: Path, *options: str, fault: Fault | None = None) -> int:
    """A run like `launch`'s in this process; its exit status. For what is imported slowly and is not in
    warm.py: it is imported once."""
    from siamtransfer.pretraining import schedule
    from siamtransfer.programs.pretrain import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "set_lr", schedule.set_lr)  # undone after `before_step`
        if fault is not None:
            fault()
        try:
            main([*TINY, f"--run.dir={folder}", *options])
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@functools.cache
def context() -> Any:
    """The server that forks; its modules are found through PYTHONPATH, which no other process gets to see."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.warm"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(ROOT / "tests"), *([before] if before else [])]
    )
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _begin(counts: dict[str, int], work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    DEFAULT_COUNTS.update(counts)
    work(*arguments)


def _work(
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    result: str,
    environment: dict[str, str],
    timeout_minutes: float | None,
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    from siamtransfer.distributed.runtime import start_runtime
    from siamtransfer.utils.errors import UserError

    try:
        with start_runtime("cpu", timeout_minutes=timeout_minutes or 30) as runtime:
            found = work(runtime, *arguments)
    except UserError as error:
        if timeout_minutes is None:
            raise
        found = type(error).__name__, str(error)
    torch.save(found, result)


def _program(argv: list[str], out: str, err: str, environment: dict[str, str], fault: Fault | None) -> None:
    os.environ.update(environment)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with Path(path).open("ab", 0) as file:
            os.dup2(file.fileno(), stream.fileno())
    torch.set_num_threads(1)
    multiprocessing.set_start_method(
        "fork", force=True
    )  # for data loaders; a server's child would start servers
    from siamtransfer.cli import run
    from siamtransfer.programs.pretrain import main

    if fault is not None:
        fault()
    run(lambda: main(argv))


# Faults.


def send(number: signal.Signals) -> None:
    """Sends a signal to this process."""
    os.kill(os.getpid(), number)


def before_step(step: int, action: Fault) -> None:
    """Does `action` when the program is about to compute `step`."""
    from siamtransfer.pretraining import schedule

    original = schedule.set_lr

    def set_lr(optimizer: Any, config: Any, now: int, steps_per_epoch: int) -> float:
        if now == step:
            action()
        return original(optimizer, config, now, steps_per_epoch)

    schedule.set_lr = set_lr  # type: ignore[assignment]


def stop_at(step: int, number: signal.Signals = signal.SIGTERM) -> Fault:
    """A fault: the process gets a signal just before `step`."""
    return functools.partial(before_step, step, functools.partial(send, number))


# What a run leaves behind.


def newest(folder: Path) -> dict[str, Any]:
    """The published training state."""
    return torch.load(folder / "checkpoint.pth", weights_only=True)


def steps_kept(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run folder."""
    return sorted(int(path.name.split("-")[1]) for path in (folder / "checkpoints").glob("step-*.pth"))


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without the clock's numbers, which no two runs share."""
    timed = ("images_per_second", "data_wait_share")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in timed} for line in lines]


def differences(one: Any, other: Any, at: str = "", free: tuple[str, ...] = ("config.run.dir",)) -> list[str]:
    """Where two nested states are not the same to the last bit."""
    if at in free:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other}, key=str)
        return [
            d
            for key in keys
            for d in differences(
                one.get(key, "absent"), other.get(key, "absent"), f"{at}.{key}".lstrip("."), free
            )
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            d
            for n, (a, b) in enumerate(zip(one, other, strict=True))
            for d in differences(a, b, f"{at}[{n}]", free)
        ]
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [at]
    return [] if type(one) is type(other) and one == other else [f"{at}: {one!r} and {other!r}"]


def assert_same_run(one: Path, other: Path, free: tuple[str, ...] = ("config.run.dir",)) -> None:
    """Two runs ended in the same weights, buffers, optimiser and progress and logged the same, to the bit."""
    assert differences(newest(one), newest(other), free=free) == []
    assert rows(one) == rows(other)


def all_finite(state: Any) -> bool:
    """Whether every tensor and number of a nested state is finite."""
    if isinstance(state, dict | list | tuple):
        return all(all_finite(item) for item in (state.values() if isinstance(state, dict) else state))
    if isinstance(state, Tensor):
        return bool(torch.isfinite(state).all())
    return not isinstance(state, float) or math.isfinite(state)
