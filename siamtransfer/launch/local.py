"""A program on this machine, one process a GPU, by torchrun; its exit status is that of the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from siamtransfer.cli.entry import ERROR_MARKER
from siamtransfer.training.stop_marker import VARIABLE
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

SHUTDOWN_SECONDS = 240  # how long torchrun waits for processes to save themselves after a signal
MOST_THREADS = 8  # of a process for computations on the CPU
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def count_gpus() -> int:
    """How many GPUs this process sees."""
    import torch

    return torch.cuda.device_count()


def processes_for(gpus: int | None, processes: int | None) -> int:
    """How many processes to start; all GPUs, or one process where there is none, if both are None.

    Raises:
        UserError: more GPUs are wanted than there are.
    """
    if processes is not None:
        return processes
    there = count_gpus()
    if gpus is not None and gpus > there:
        raise UserError(
            f"--gpus {gpus}: this machine has {there} GPU{'s' * (there != 1)} (CUDA_VISIBLE_DEVICES counts); "
            "give fewer, or --processes N for processes on the CPU"
        )
    return gpus or max(1, there)


def torchrun_command(program: str, words: Sequence[str], processes: int, max_restarts: int) -> list[str]:
    """The command; without torchrun where there is one process that is not started again."""
    module = ["-m", f"siamtransfer.programs.{program.replace('-', '_')}", *words]
    if processes == 1 and max_restarts == 0:
        return [sys.executable, *module]
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
        "--max-restarts", str(max_restarts), *module,
    ]  # fmt: skip


def run_here(command: Sequence[str], processes: int) -> int:
    """Runs the command to its end, hands signals on to it, and returns the exit status of the run.

    That is 128 and the signal's number after a stop in which the run saved itself, 2 after a user's error,
    else the command's own. A user's error is not tried again, whatever --max-restarts says.
    """
    with tempfile.TemporaryDirectory() as folder:
        stopped, mistaken = Path(folder) / "stopped", Path(folder) / "error"
        environment = os.environ | {VARIABLE: str(stopped), ERROR_MARKER: str(mistaken)}
        environment.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_SECONDS))
        if processes > 1:
            threads = max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) // processes))
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        # In a session of its own, a Ctrl-C of the terminal reaches the command once: from here.
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        with _handing_on(child):
            status = _wait(child, mistaken)
        for marker in (mistaken, stopped):
            if status != 0 and marker.exists():
                return int(marker.read_text(encoding="utf-8"))
    return status if status >= 0 else 128 - status


def _wait(child: subprocess.Popen[bytes], mistaken: Path) -> int:
    """The command's status; it is ended where a process of it has met a user's error."""
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if mistaken.exists():
                break
    child.terminate()
    return child.wait()


@contextmanager
def _handing_on(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Signals go to the command: SIGUSR1, which torchrun does not know, as SIGTERM."""

    def hand_on(number: int, frame: types.FrameType | None) -> None:
        say(f"{signal.Signals(number).name}: handed on to the run")
        child.send_signal(signal.SIGTERM if number == signal.SIGUSR1 else number)

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
