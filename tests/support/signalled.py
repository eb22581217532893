"""Any program in a process of its own, signals to it, and what it leaves: processes and files.

As in small_runs.py the process is forked from a server that has imported everything.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from siamtransfer.utils.temporary import is_temporary
from support.small_runs import Fault, start_process

Process = tuple[int, int]
"""A process: its number, and the clock tick in which it began, for numbers are used again."""


@dataclass
class Program:
    """A program that runs, or has ended.

    Attributes:
        process: what multiprocessing knows of it.
        out, err: the files that its stdout and stderr go to.
    """

    process: Any
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def said(self) -> str:
        """Everything on stderr so far."""
        return self.err.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> bool:
        """Waits until the condition holds; returns whether it does. Ends early with the program."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until or not self.process.is_alive():
                return condition()
            time.sleep(0.01)
        return True

    def says(self, words: str, seconds: float = 60) -> None:
        """Waits until the program has said the words."""
        assert self.wait_for(lambda: words in self.said, seconds), f"no {words!r} in:\n{self.said}"

    def ended(self, seconds: float = 30) -> int | None:
        """The exit status, minus the signal's number when one killed it; None, and it is killed, where it
        runs longer."""
        self.process.join(seconds)
        status: int | None = self.process.exitcode
        if status is None:
            self.process.kill()
            self.process.join()
        return status


def launch_program(
    words: Sequence[str],
    files: Path,
    *,
    fault: Fault | None = None,
    variables: dict[str, str] | None = None,
    terminal: str | None = None,
) -> Program:
    """Starts `siamtransfer WORDS`, which leads a process group, as a command of a terminal does.

    Args:
        files: the name of its output without an ending.
        terminal: a device that becomes its controlling terminal and takes its stderr.
    """
    files.parent.mkdir(parents=True, exist_ok=True)
    out, err = files.with_suffix(".out"), files.with_suffix(".err")
    err.touch()
    environment = {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"], **(variables or {})}
    process = start_process(_program, list(words), str(out), str(err), environment, fault, terminal)
    return Program(process, out, err)


def _program(
    words: list[str],
    out: str,
    err: str,
    variables: dict[str, str],
    fault: Fault | None,
    terminal: str | None,
) -> None:
    os.setsid()
    os.environ.update(variables)
    if terminal is not None:  # a session's first terminal becomes its controlling one
        err = terminal
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with Path(path).open("wb" if path == terminal else "ab", 0) as file:
            os.dup2(file.fileno(), stream.fileno())
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # whoever started the tests may ignore them
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)
    from siamtransfer.cli import run
    from siamtransfer.cli.main import program

    sys.argv = ["siamtransfer", *words]
    if fault is not None:
        fault()
    run(lambda: program(words[0])(words[1:]))


def descendants(pid: int) -> set[Process]:
    """The processes that `pid` has started and those that they have, without the ones that have ended."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (found := _stat(int(entry.name))) is not None:
            state, parent, began = found
            if state != "Z":
                parents[int(entry.name)] = (parent, began)
    below: set[Process] = set()
    level = {pid}
    while level:
        level = {child for child, (parent, _) in parents.items() if parent in level}
        below |= {(child, parents[child][1]) for child in level}
    return below


def survivors(processes: set[Process], seconds: float = 10) -> set[Process]:
    """Those of the processes that still run after `seconds`; it returns as soon as none does."""
    until = time.monotonic() + seconds
    while left := {process for process in processes if _runs(process)}:
        if time.monotonic() > until:
            return left
        time.sleep(0.02)
    return set()


def kill_all(processes: set[Process]) -> None:
    """Ends what a failed test has left."""
    for process in processes:
        if _runs(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process[0], signal.SIGKILL)


def unfinished_files(folder: Path) -> list[str]:
    """The hidden files below a folder that were to become whole ones."""
    return sorted(str(path) for path in folder.rglob(".*") if is_temporary(path.name))


def _runs(process: Process) -> bool:
    found = _stat(process[0])
    return found is not None and found[0] != "Z" and found[2] == process[1]


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and beginning of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[19])
