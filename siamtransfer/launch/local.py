"""A program on this machine, one process a GPU, by torchrun; its exit status is that of the run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from siamtransfer.cli.entry import ERROR_MARKER
from siamtransfer.training.stop_marker import VARIABLE
from siamtransfer.utils.children import Child
from siamtransfer.utils.errors import UserError

SHUTDOWN_SECONDS = 240  # how long torchrun waits for processes to save themselves after a signal
MOST_THREADS = 8  # of a process for computations on the CPU
TORCHRUNS_OWN = 1  # its status, whatever those of its processes are


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

    That is 128 and the signal's number after a stop by a signal, 2 after a user's error, else the command's
    own. A user's error is not tried again, whatever --max-restarts says.
    """
    with tempfile.TemporaryDirectory() as folder:
        stopped, mistaken = Path(folder) / "stopped", Path(folder) / "error"
        environment = os.environ | {VARIABLE: str(stopped), ERROR_MARKER: str(mistaken)}
        environment.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_SECONDS))
        if processes > 1:
            threads = max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) // processes))
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        with Child(command, env=environment) as child:
            _wait(child.process, mistaken)
        for marker in (mistaken, stopped):
            if child.status != 0 and marker.exists():
                return int(marker.read_text(encoding="utf-8"))
    if child.status == TORCHRUNS_OWN and child.came:
        return 128 + child.came[0]  # the signal ended a program that keeps nothing
    return child.status


def _wait(process: subprocess.Popen[bytes], mistaken: Path) -> None:
    """Waits for the command; it is ended where a process of it has met a user's error."""
    while True:
        try:
            process.wait(timeout=0.5)
            return
        except subprocess.TimeoutExpired:
            if mistaken.exists():
                break
    process.terminate()
