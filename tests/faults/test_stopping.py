"""Faults 7 and 8: SIGTERM and Ctrl-C finish the step, save once and end with 143 or 130."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import torch
from support.small_runs import (
    ROOT,
    STEPS,
    TINY,
    assert_same_run,
    before_step,
    complete,
    images_of,
    launch,
    newest,
    rows,
    send,
    steps_kept,
    stop_at,
)

import siamtransfer.checkpoints.training_state
from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.pretraining.monitors import KnnMonitor
from siamtransfer.programs.pretrain import main
from siamtransfer.utils.files import atomic_write, digest_of_file

ONLY_AT_THE_END = ["--checkpoint.every_steps=0"]
FREE = ("config.run.dir", "config.checkpoint.every_steps", "config.data.workers")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    complete(folder)
    return folder


SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_fault_07_a_signal_finishes_the_step_saves_once_and_ends(
    number: signal.Signals, status: int, undisturbed: Path, tmp_path: Path
) -> None:
    run = launch(tmp_path / "run", *ONLY_AT_THE_END, fault=stop_at(6, number))
    assert run.wait() == status
    assert steps_kept(run.folder) == [7]
    cure = f"go on with --resume {run.folder}"
    assert run.said.splitlines()[-1] == f"stopped on a signal after step 7 of {STEPS}; {cure}"
    assert run.out.read_text() == ""
    complete(run.folder, *ONLY_AT_THE_END, "--resume")
    assert_same_run(run.folder, undisturbed, FREE)


def test_fault_07_a_signal_inside_a_knn_check_leaves_it_for_the_resumed_run(
    shapes_folder: Path, tmp_path: Path
) -> None:
    knn = ["--monitor.knn_every=1", "--monitor.knn_k=5"]
    checked = [*images_of(shapes_folder), *ONLY_AT_THE_END, "--optim.epochs=2", *knn]
    complete(tmp_path / "whole", *checked)
    run = launch(tmp_path / "run", *checked, fault=stop_in_check)
    assert run.wait() == 143
    assert steps_kept(run.folder) == [5]
    name = "knn/k=5/T=0.07/top1"
    assert not any(name in row for row in rows(run.folder))
    assert [row["step"] for row in rows(tmp_path / "whole") if name in row] == [5, 10]
    complete(run.folder, *checked, "--resume")
    assert_same_run(run.folder, tmp_path / "whole", FREE)


def stop_in_check() -> None:
    original = KnnMonitor._score

    def score(self: KnnMonitor, step: int) -> dict[str, float]:
        send(signal.SIGTERM)
        return original(self, step)

    KnnMonitor._score = score  # type: ignore[method-assign]


PATIENT = """
import time
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.utils.log import print_messages
print_messages()
with StopSignal() as stop:
    stop.doing = "finishing step 7, then saving"
    print("ready", flush=True)
    while True:
        time.sleep(60)
"""


def test_a_second_ctrl_c_quits_at_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PATIENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # torchrun's copy of the first one
        said = process.stderr.readline()
        assert said == "finishing step 7, then saving; press Ctrl-C again to quit at once\n"
        time.sleep(0.7)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_fault_07_previous_handlers_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from siamtransfer.pretraining import schedule

    heard: list[int] = []
    mine = [signal.signal(number, lambda n, _: heard.append(n)) for number in (signal.SIGTERM, signal.SIGINT)]
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(schedule, "set_lr", schedule.set_lr)  # undone after `before_step`
    try:
        before_step(1, functools.partial(send, signal.SIGTERM))
        with pytest.raises(SystemExit) as ended:
            main([*TINY, f"--run.dir={tmp_path / 'run'}"])
        assert ended.value.code == 143
        assert heard == []
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), mine, strict=True):
            signal.signal(number, handler)


def test_fault_07_ctrl_c_in_a_terminal_reaches_the_workers_too(shapes_folder: Path, tmp_path: Path) -> None:
    folder, endless = tmp_path / "run", "--optim.epochs=1000"
    options = [*images_of(shapes_folder), "--data.workers=2", endless, f"--run.dir={folder}"]
    command = [sys.executable, str(ROOT / "pretrain" / "main.py"), *TINY, *options]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert any(line.startswith("[7/") for line in process.stderr)
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        said, seconds = process.stderr.read(), time.monotonic() - began
    assert process.returncode == 130
    assert seconds < 30
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("stopped on a signal after step ")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker is left


def test_fault_08_two_signals_and_one_during_a_save(undisturbed: Path, tmp_path: Path) -> None:
    fault = functools.partial(before_step, 2, functools.partial(before_step, 5, stop_twice))
    run = launch(tmp_path / "run", fault=fault)
    assert run.wait() == 143
    assert steps_kept(run.folder) == [4, 6]
    assert [path.name for path in run.folder.rglob(".*")] == []
    for path in (run.folder / "checkpoints").iterdir():
        assert digest_of_file(path).startswith(path.stem.rsplit("-", 1)[1])
    assert newest(run.folder)["progress"]["step"] == 6
    complete(run.folder, "--resume")
    assert_same_run(run.folder, undisturbed)


def stop_twice() -> None:
    send(signal.SIGTERM)
    send(signal.SIGTERM)
    siamtransfer.checkpoints.training_state.atomic_write = interrupted_write


@contextlib.contextmanager
def interrupted_write(path: str | Path) -> Iterator[IO[bytes]]:
    with atomic_write(path) as file:
        file.write(b"")
        send(signal.SIGTERM)
        yield file
        send(signal.SIGINT)


def test_fault_08_a_signal_in_the_last_step_leaves_only_the_summary_to_do(
    undisturbed: Path, tmp_path: Path
) -> None:
    run = launch(tmp_path / "run", fault=stop_at(STEPS - 1))
    assert run.wait() == 143
    assert_same_run(run.folder, undisturbed)
    again = complete(run.folder, "--resume")
    assert f"[{STEPS}/{STEPS}]" not in again.said
    assert again.record["metrics"]["loss"] == pytest.approx(last_loss(undisturbed))
    assert torch.equal(weights(run.folder), weights(undisturbed))


def last_loss(folder: Path) -> float:
    return [row["loss"] for row in rows(folder) if "loss" in row][-1]


def weights(folder: Path) -> torch.Tensor:
    state = Checkpoints(folder).load_newest(lambda _: None)
    assert state is not None
    return torch.cat([tensor.flatten().double() for tensor in state["model"].values()])
