"""What the loader takes of /dev/shm, through which worker processes hand over their batches.

A container has 64 MiB of it unless it is told otherwise; a worker that finds it full dies by SIGBUS, without
a sentence. So the loader's need is calculated before the workers start.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

PREFETCH = 4  # batches that a worker has ready or in hand; more make up for slow files, at the cost of memory
HELD = 2  # batches that the main process holds: the one in use and the one that is pinned
SHARED_MEMORY = Path("/dev/shm")
GIB = 2**30


def loader_shared_memory(
    sides: Sequence[int], batch: int, workers: int, prefetch: int = PREFETCH, channels: int = 3
) -> int:
    """The most bytes of shared memory that a loader takes: 0 without workers.

    Args:
        sides: the side in pixels of each view of a sample.
        batch: samples in a batch of this rank.
        workers: its worker processes.
        prefetch: batches that each has ready.
        channels: of an image.
    """
    sample = channels * sum(side * side for side in sides) + 8  # crops in 8 bits, and the index
    return batch * sample * (workers * prefetch + HELD) if workers else 0


def free_shared_memory() -> int | None:
    """Free bytes of /dev/shm; None where there is none, as on systems that share memory otherwise."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def affordable_prefetch(
    sides: Sequence[int], batch: int, workers: int, ranks: int = 1, channels: int = 3
) -> int:
    """Batches that each worker may have ready: PREFETCH, or as many as /dev/shm holds, with a remark.

    `ranks` are the processes on this machine that have such a loader. The batches do not depend on it.

    Raises:
        UserError: /dev/shm does not hold one batch of each worker.
    """
    free = free_shared_memory()
    if free is None or not workers:
        return PREFETCH
    share = free // ranks
    needs = {n: loader_shared_memory(sides, batch, workers, n, channels) for n in range(1, PREFETCH + 1)}
    fitting = [n for n, need in needs.items() if need <= share]
    if len(fitting) == PREFETCH:
        return PREFETCH
    need = needs[PREFETCH] * ranks / GIB
    cure = f"docker run --shm-size {max(1, round(need * 1.25 + 0.5))}g, or fewer --data.workers"
    loaders = "the loader" if ranks == 1 else f"the loaders of {ranks} ranks"
    text = f"/dev/shm has {free / GIB:.2f} GiB free, and {loaders} would take {need:.2f} GiB"
    if not fitting:
        raise UserError(f"{text}, with one batch a worker still too much; give more by {cure}")
    say(f"remark: {text}: each worker prepares {fitting[-1]} batches instead of {PREFETCH} ({cure})")
    return fitting[-1]
