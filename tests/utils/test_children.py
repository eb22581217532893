"""Commands of a program: signals reach them, they are waited for, and they do not outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.paths import ROOT
from support.signalled import Process, descendants, kill_all, survivors
from support.thorough import more
from support.waiting import until

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

PARENT = """
import sys
from siamtransfer.cli import run
from siamtransfer.utils.children import run_child
from siamtransfer.utils.log import print_messages

def main():
    print_messages()
    sys.exit(run_child([sys.executable, "-c", sys.argv[1], sys.argv[2]]).returncode)

run(main)
"""
SAVES = """
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(0.6)  # longer than subprocess.run waits after a Ctrl-C
    pathlib.Path(sys.argv[1], "saved").write_text(str(number))
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, save)
pathlib.Path(sys.argv[1], "ready").touch()
while True:
    time.sleep(60)
"""


@contextmanager
def waiting(folder: Path) -> Iterator[tuple[subprocess.Popen[str], set[Process]]]:
    """A program that waits for a command, and its processes."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, SAVES, str(folder)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        until((folder / "ready").exists)
        below = descendants(process.pid)
        try:
            yield process, below
        finally:
            process.kill()
            kill_all(below)


@pytest.mark.parametrize(
    ("number", "received"),
    [
        (signal.SIGINT, signal.SIGINT),
        more(signal.SIGTERM, signal.SIGTERM),
        more(signal.SIGHUP, signal.SIGHUP),
        more(signal.SIGUSR2, signal.SIGTERM),
    ],
)
def test_a_signal_goes_on_to_the_command_which_is_waited_for(
    number: signal.Signals, received: signal.Signals, tmp_path: Path
) -> None:
    with waiting(tmp_path) as (process, below):
        process.send_signal(number)
        assert process.wait(20) == 128 + received
        assert process.stderr is not None
        assert process.stderr.read() == f"{number.name}: handed on to the run\n"
        assert survivors(below) == set()
    assert (tmp_path / "saved").read_text() == str(int(received))


def test_a_command_saves_itself_where_its_program_is_killed(tmp_path: Path) -> None:
    with waiting(tmp_path) as (process, below):
        assert len(below) == 1
        process.kill()
        assert survivors(below) == set()
    assert (tmp_path / "saved").read_text() == str(int(signal.SIGTERM))


def test_ctrl_z_halts_the_command_and_it_goes_on(tmp_path: Path) -> None:
    with waiting(tmp_path) as (process, below):
        command = next(iter(below))[0]
        process.send_signal(signal.SIGTSTP)
        until(lambda: state(process.pid) == state(command) == "T")
        process.send_signal(signal.SIGCONT)
        until(lambda: state(process.pid) == state(command) == "S")
        process.terminate()
        assert process.wait(20) == 143
    assert (tmp_path / "saved").exists()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_command_that_a_signal_killed_has_the_status_of_a_shell_and_is_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from siamtransfer.utils.children import run_child

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTSTP)]
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_child([sys.executable, "-c", code]).returncode == 137
    assert "the run was killed by SIGKILL: the machine may have run out of memory" in capsys.readouterr().err
    crash = "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()"
    assert run_child([sys.executable, "-c", crash]).returncode == 134
    said = capsys.readouterr().err
    assert "the run was killed by SIGABRT, in the native code of a library: PYTHONFAULTHANDLER=1" in said
    assert run_child([sys.executable, "-c", "raise SystemExit(3)"]).returncode == 3
    assert capsys.readouterr().err == ""
    with pytest.raises(NotADirectoryError):
        run_child([os.devnull + "/no/such/command"])
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTSTP)]
    assert after == handlers
