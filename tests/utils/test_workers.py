"""Processes that load data end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, threading, time
from torch.utils.data import DataLoader, Dataset
from siamtransfer.utils.workers import worker_init

class Pids(Dataset):
    def __len__(self):
        return 10**6
    def __getitem__(self, index):
        time.sleep(0.01)
        return os.getpid()

def read():
    batches = iter(DataLoader(Pids(), num_workers=2, batch_size=1, worker_init_fn=worker_init()))
    print(*sorted({int(next(batches)) for _ in range(8)}), flush=True)
    global kept
    kept = batches

if sys.argv[1] == "thread":
    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    time.sleep(1.5)
    print(*[int(next(kept)) > 0 for _ in range(4)], flush=True)  # they outlive the thread that started them
else:
    read()
    print(flush=True)
if sys.argv[1] == "exit":
    sys.stdin.readline()
    print(*[int(next(kept)) for _ in range(8)], flush=True)
    sys.exit(0)  # with the iterator
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("started_from", ["main", "thread"])
def test_workers_die_with_their_parent(started_from: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, started_from], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(is_running, workers))
        if started_from == "thread":
            assert process.stdout.readline().split() == ["True"] * 4
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_program_that_holds_an_iterator_ends_and_others_cannot_end_its_workers() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "exit"], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        workers = [int(word) for word in process.stdout.readline().split()]
        assert process.stdout.readline() == "\n"
        for worker in workers:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                os.kill(worker, number)
        time.sleep(0.3)
        process.stdin.write("\n")
        process.stdin.flush()
        assert {int(word) for word in process.stdout.readline().split()} == set(workers)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert not any(map(is_running, workers))
