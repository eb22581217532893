"""The peak of a process's memory, from Linux's /proc; other systems tell the peak of a whole life only."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

PROC = Path("/proc")


def reset_peak() -> bool:
    """Begins a new peak of this process's resident memory; False where the system cannot."""
    try:
        (PROC / "self" / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_bytes(process: int | str = "self") -> int | None:
    """The largest resident memory of a process since its start or `reset_peak`, in bytes; pages that it
    shares with others and pages of mapped files count. None where the system does not tell."""
    try:
        status = (PROC / str(process) / "status").read_text(encoding="utf-8")
    except OSError:
        return _peak_of_life() if process == "self" else None
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    return None  # a process that has ended and is not waited for yet


def worker_peaks() -> dict[int, int]:
    """`peak_bytes` of every process that multiprocessing has started and that still runs, by its number.

    Only the thread that starts such processes may ask, for asking waits for those that have ended.
    """
    peaks = {child.pid: peak_bytes(child.pid) for child in multiprocessing.active_children() if child.pid}
    return {number: peak for number, peak in peaks.items() if peak is not None}


def _peak_of_life() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
