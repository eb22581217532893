"""A program on this machine: how many processes, and whose exit status is returned."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from siamtransfer.launch import local
from siamtransfer.utils.errors import UserError

WAITS = """
import os, pathlib, signal, sys, time
def save(number, frame):
    pathlib.Path(os.environ["SIAMTRANSFER_STOP_MARKER"]).write_text(f"{128 + number}\\n")
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""
MISTAKEN = """
import os, pathlib, time
pathlib.Path(os.environ["SIAMTRANSFER_ERROR_MARKER"]).write_text("2\\n")
time.sleep(60)
"""


def test_all_gpus_or_one_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((0, 1), (8, 8)):
        monkeypatch.setattr(local, "count_gpus", lambda there=there: there)
        assert local.processes_for(None, None) == expected
    assert local.processes_for(4, None) == 4
    assert local.processes_for(None, 16) == 16
    with pytest.raises(UserError, match="--gpus 9: this machine has 8 GPUs"):
        local.processes_for(9, None)


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (7, 7)])
def test_the_status_of_the_command_is_returned(status: int, expected: int) -> None:
    assert local.run_here([sys.executable, "-c", f"raise SystemExit({status})"], 1) == expected


def test_threads_are_shared_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)))
    program = "import os; raise SystemExit(int(os.environ['OMP_NUM_THREADS']))"
    assert local.run_here([sys.executable, "-c", program], 4) == 3


def test_a_users_error_ends_the_command_at_once_with_its_status() -> None:
    began = time.monotonic()
    assert local.run_here([sys.executable, "-c", MISTAKEN], 2) == 2
    assert time.monotonic() - began < 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_handed_on_and_the_status_is_the_runs(tmp_path: Path, number: int) -> None:
    ready = tmp_path / "ready"

    def send() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    sender = threading.Thread(target=send)
    sender.start()
    assert local.run_here([sys.executable, "-c", WAITS, str(ready)], 1) == 128 + signal.SIGTERM
    sender.join()
    assert signal.getsignal(number) == before
