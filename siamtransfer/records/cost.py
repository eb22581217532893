"""The cost of a record in one line, for a terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def cost_line(cost: Mapping[str, Any]) -> str:
    """Such as `2:05 · 60,000 images at 1,200 images/s · peak 3.1 GiB · NVIDIA H200, peak 2.4 GiB · 35 kJ
    (NVML: 1 whole GPU)`.

    Args:
        cost: `provenance["cost"]` of a record; what it does not have is left out.
    """
    parts = [_duration(cost["seconds"])] if "seconds" in cost else []
    if cost.get("images"):
        speed = f" at {cost['images_per_second']:,.4g} images/s" if "images_per_second" in cost else ""
        parts.append(f"{cost['images']:,} images{speed}")
    if cost.get("features_from_cache"):
        parts.append(f"features of {cost['features_from_cache']:,} images from the cache")
    if "peak_memory_bytes" in cost:
        parts.append(f"peak memory {_size(cost['peak_memory_bytes'])}")
    if "peak_worker_memory_bytes" in cost:
        parts.append(f"{_size(cost['peak_worker_memory_bytes'])} in a worker")
    if "device" in cost:
        memory = cost.get("peak_device_memory_bytes")
        processes = f"{cost['processes']} processes on " if cost.get("processes", 1) > 1 else ""
        parts.append(f"{processes}{cost['device']}" + (f", peak {_size(memory)}" if memory else ""))
    if "energy_joules" in cost:
        parts.append(f"{_joules(cost['energy_joules'])} ({cost.get('energy_source', 'source not stated')})")
    if "since_step" in cost:
        parts.append(f"from step {cost['since_step']} on; the cost before is not known")
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d} h" if hours else f"{minute}:{second:02d} min"


def _size(count: int) -> str:
    for unit, name in _UNITS:
        if count >= unit * 1000 / 1024:  # else `1e+03 MiB`
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"


def _joules(joules: float) -> str:
    for unit, name in ((1e6, "MJ"), (1e3, "kJ")):
        if joules >= unit:
            return f"{joules / unit:.3g} {name}"
    return f"{joules:.3g} J"
