"""A process under a memory limit: how long it took, and the most memory of each of its ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 0.25  # seconds between two looks at the processes


@dataclass
class Watched:
    """What became of a command.

    Attributes:
        status: exit status; negative where a signal ended it.
        seconds: until it ended.
        peaks: GiB of each rank at its worst moment, with its workers. Memory that processes share is divided
            among them (PSS), so that nothing counts twice.
        exceeded: whether it was killed because a rank went over the limit.
        times: seconds at which each of the caller's `moments` came.
    """

    status: int = 0
    seconds: float = 0.0
    peaks: dict[int, float] = field(default_factory=dict)
    exceeded: bool = False
    times: dict[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> float:
        """GiB of the largest rank."""
        return max(self.peaks.values(), default=0.0)


def run_watched(
    command: Sequence[str],
    log: Path,
    *,
    limit: float,
    moments: dict[str, Callable[[], bool]] | None = None,
    stop_at: str | None = None,
    timeout: float = 7200,
) -> Watched:
    """Runs `command` with its output in `log`, and looks at its memory until it ends.

    `moments` are conditions by name, and the time at which each first holds is noted. At `stop_at` the
    command gets SIGTERM. It is killed when a rank uses more than `limit` GiB, or after `timeout` seconds.
    """
    watched, waiting = Watched(), dict(moments or {})
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None:
            for rank, size in memory_by_rank(process.pid).items():
                watched.peaks[rank] = max(watched.peaks.get(rank, 0.0), size)
            watched.exceeded = watched.peak > limit
            if watched.exceeded or time.monotonic() - start > timeout:
                os.killpg(process.pid, signal.SIGKILL)
            for name in [name for name, holds in waiting.items() if holds()]:
                del waiting[name]
                watched.times[name] = time.monotonic() - start
                if name == stop_at:
                    process.terminate()
            time.sleep(INTERVAL)
    watched.status, watched.seconds = process.returncode, time.monotonic() - start
    return watched


def memory_by_rank(root: int) -> dict[int, float]:
    """GiB (PSS) of the process `root` and all below it, by the RANK of their environment (0 without one)."""
    sizes: dict[int, float] = {}
    for pid in _family(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        rank = next((int(entry[5:]) for entry in environment if entry.startswith(b"RANK=")), 0)
        size = next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
        sizes[rank] = sizes.get(rank, 0.0) + size / 2**20
    return sizes


def _family(root: int) -> list[int]:
    family = [root]
    for pid in family:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return family
