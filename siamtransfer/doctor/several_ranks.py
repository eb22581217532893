"""Checks of two ranks against one: averaged gradients, synchronised batch norm, the exchange of the guard."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import TypedDict

import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.doctor.findings import Finding, check, judged, measured
from siamtransfer.doctor.rank_steps import losses_of
from siamtransfer.doctor.workbench import Workbench

RANKS = 2
SECONDS = 120
AGREE = 1e-8  # float64 losses
WORTH = 1.03  # times the speed; less is noise


@check("two_ranks", seconds=40, needs="a device")
def check_two_ranks(bench: Workbench) -> Iterator[Finding]:
    """Two processes (NCCL on two GPUs; gloo on one GPU or the CPU) give one process's losses."""
    alone = losses_of(Runtime(bench.device, torch.float32))
    several_gpus = bench.device.type == "cuda" and torch.cuda.device_count() >= RANKS
    devices = [f"cuda:{rank}" if several_gpus else str(bench.device) for rank in range(RANKS)]
    backend = "nccl" if several_gpus else "gloo"
    found = run_ranks(devices, backend)
    if isinstance(found, str):
        yield Finding("two_ranks", "FAIL", f"two ranks over {backend} do not train: {found}")
        return
    worst = largest_difference(found["losses"], alone)
    yield judged("two_ranks", worst < AGREE, f"over {backend} losses differ from one rank's by {worst:.1e}")


@check("sync_batch_norm", seconds=60, needs="a GPU")
def check_sync_batch_norm(bench: Workbench) -> Iterator[Finding]:
    """Synchronised batch norm with one exchange a layer against torch's, on two GPUs over NCCL."""
    if torch.cuda.device_count() < RANKS:
        yield Finding("sync_batch_norm", "SKIP", "needs two GPUs: NCCL takes one rank a GPU")
        return
    devices = [f"cuda:{rank}" for rank in range(RANKS)]
    theirs, ours = (run_ranks(devices, "nccl", kind) for kind in ("torch", "single-exchange"))
    for found in (theirs, ours):
        if isinstance(found, str):
            yield Finding("sync_batch_norm", "FAIL", f"two ranks over nccl do not train: {found}")
            return
    assert not isinstance(theirs, str)
    assert not isinstance(ours, str)
    worst = largest_difference(theirs["losses"], ours["losses"])
    yield judged("sync_batch_norm/parity", worst < AGREE, f"float64 losses differ by {worst:.1e}", worst)
    before, now = 1e3 * theirs["seconds"], 1e3 * ours["seconds"]
    yield measured("sync_batch_norm/speed_up", before / now, f"{before:.1f} -> {now:.1f} ms a step")
    if worst < AGREE and before / now > WORTH:
        flag = "--hardware.sync-batch-norm-kind single-exchange"
        yield Finding("sync_batch_norm/advice", "INFO", f"with several GPUs add {flag}", [flag])


class RankResult(TypedDict, total=False):
    """What rank 0 of rank_steps.py prints.

    Attributes:
        losses: of each step.
        seconds: a step's time, over NCCL.
    """

    losses: list[float]
    seconds: float


def largest_difference(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def run_ranks(devices: list[str], backend: str, kind: str = "torch") -> RankResult | str:
    """Runs rank_steps.py once for each device; returns what rank 0 found, or why it found nothing."""
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(len(devices)),
        "DOCTOR_BACKEND": backend,
        "DOCTOR_BATCH_NORM": kind,
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "siamtransfer.doctor.rank_steps"],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "DOCTOR_DEVICE": device},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, device in enumerate(devices)
    ]
    try:
        said = [rank.communicate(timeout=SECONDS) for rank in ranks]
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS} s"
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    if said[0][0].strip():
        result: RankResult = json.loads(said[0][0].splitlines()[-1])
        return result
    lines = [line for _, error in said for line in error.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "they ended without a word"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
