"""A signal outside of a loop ends a program by an exception; one in a long call is ended by a thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.small_runs import ROOT

from siamtransfer.cli import run
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.signals import STOPPING, SecondInterrupt

pytestmark = pytest.mark.fault

PROGRAM = """
import ctypes, sys, time
from siamtransfer.cli import ending, run
ending.ENDING_SECONDS = float(sys.argv[2])

def deaf():
    print("ready", file=sys.stderr, flush=True)
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # for ever, and no signal interrupts it

def tidies_up():
    try:
        print("ready", file=sys.stderr, flush=True)
        time.sleep(60)
    finally:
        time.sleep(1.2)
        print("tidied up", file=sys.stderr, flush=True)

def at_exit():
    import atexit
    atexit.register(lambda: (print("ready", file=sys.stderr, flush=True), time.sleep(60)))

run({"deaf": deaf, "tidies_up": tidies_up, "at_exit": at_exit}[sys.argv[1]])
"""


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_removes_what_is_being_written(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(one) for one in STOPPING]

    def main() -> None:
        with atomic_write(tmp_path / "features.npz") as file:
            file.write(b"half")
            os.kill(os.getpid(), number)
            time.sleep(10)

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 128 + number
    said = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert capsys.readouterr() == ("", f"{said}\n")
    assert list(tmp_path.iterdir()) == []
    assert [signal.getsignal(one) for one in STOPPING] == before


def test_a_signal_while_the_record_is_printed_leaves_it_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from siamtransfer.cli import entry

    def print_record(record: dict[str, Any], *, as_json: bool) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        print(record)

    monkeypatch.setattr(entry, "print_record", print_record)
    with pytest.raises(SystemExit) as ended:
        run(lambda: {"task": "x"})
    assert (ended.value.code, capsys.readouterr().out) == (0, "{'task': 'x'}\n")


def test_sighup_below_nohup_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as ended:
            run(main)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (ended.value.code, capsys.readouterr().err) == (0, "")


def ended_program(how: str, patience: float, *signals: signal.Signals) -> tuple[int, list[str], float]:
    """The status of PROGRAM after the signals, 0.7 s apart, its lines, and its seconds from the first on."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how, str(patience)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        began = time.monotonic()
        for place, number in enumerate(signals):
            time.sleep(0.7 if place else 0.2)  # the first: until it is in its call
            process.send_signal(number)
        said = process.stderr.read().splitlines()
        return process.wait(10), said, time.monotonic() - began


def test_a_long_call_is_ended_all_the_same() -> None:
    status, said, seconds = ended_program("deaf", 0.3, signal.SIGTERM)
    assert (status, said) == (143, ["the work at hand did not end within 0.3 s of SIGTERM"])
    assert seconds < 5


def test_the_first_ctrl_c_is_acknowledged_and_the_second_ends_a_long_call() -> None:
    status, said, _ = ended_program("deaf", 60, signal.SIGINT, signal.SIGINT)
    assert status == 130
    assert said == ["ending the work at hand; press Ctrl-C again to quit at once", "quitting at once"]


def test_a_repeated_signal_does_not_cut_short_what_tidies_up() -> None:
    status, said, _ = ended_program("tidies_up", 60, signal.SIGTERM, signal.SIGTERM)
    assert (status, said) == (143, ["tidied up", "ended by SIGTERM"])


def test_ctrl_c_while_libraries_end_is_no_traceback() -> None:
    assert ended_program("at_exit", 60, signal.SIGINT)[:2] == (-signal.SIGINT, [])


def test_copies_of_a_ctrl_c_are_one() -> None:
    interrupts = SecondInterrupt()
    assert [interrupts.is_first(now) for now in (7.0, 7.2, 7.5, 7.6)] == [True, None, None, False]
