"""Counters of energy that machines have: of NVIDIA's GPUs (NVML), and of processor packages (RAPL).

Each counts the whole device, whoever uses it. A counter that cannot be read is no counter: nothing is
estimated. RAPL's files are readable by root alone on most machines, since they leak what others compute.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

POWERCAP = Path("/sys/class/powercap")
POLL_SECONDS = 30.0  # between looks at RAPL, whose counters wrap around after some minutes at full load
NVML, RAPL, RAPL_AND_MEMORY = "NVML", "RAPL", "RAPL with memory"


class Zone(NamedTuple):
    """A counter of RAPL: its file, in microjoules, and the value after which it begins at 0 again."""

    file: Path
    range: int


class Energy(NamedTuple):
    """The joules of so many whole devices by one kind of counter: NVML, RAPL or RAPL_AND_MEMORY."""

    joules: float
    counter: str
    devices: int

    @property
    def source(self) -> str:
        """What was counted, in words."""
        plural = "s" if self.devices > 1 else ""
        if self.counter == NVML:
            return f"NVML: {self.devices} whole GPU{plural}"
        memory = " and the memory beside" if self.counter == RAPL_AND_MEMORY else ""
        return f"RAPL: {self.devices} whole processor package{plural}{memory}"


def rapl_zones(folder: Path | None = None) -> list[Zone]:
    """The packages, and the memory beside them where it has a counter of its own, that can be read; `folder`
    is POWERCAP or one of its form.

    A package contains its cores, and `psys` contains all packages, so these are left out.
    """
    zones = []
    for zone in sorted((folder or POWERCAP).glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text(encoding="ascii").strip()
            if name != "dram" and not name.startswith("package"):
                continue
            limit = int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
            int((zone / "energy_uj").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        zones.append(Zone(zone / "energy_uj", limit))
    return zones


class RaplMeter:
    """The joules of `zones` since this was made. A thread reads them every `POLL_SECONDS`, so that no
    wrap-around is missed."""

    def __init__(self, zones: Sequence[Zone]):
        self._zones = list(zones)
        self._last = [_read(zone) for zone in self._zones]
        self._joules = 0.0
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        if self._zones:
            self._thread = threading.Thread(target=self._poll, name="energy", daemon=True)
            self._thread.start()

    def read(self) -> Energy | None:
        """The energy up to now; None where there is no zone, or one could no longer be read."""
        self._look()
        with self._lock:
            if not self._zones or None in self._last:
                return None
            packages = sum(zone.file.parent.name.count(":") == 1 for zone in self._zones)
            counter = RAPL if packages == len(self._zones) else RAPL_AND_MEMORY
            return Energy(self._joules, counter, packages)

    def close(self) -> None:
        """Ends the thread."""
        self._over.set()
        if self._thread:
            self._thread.join()

    def _look(self) -> None:
        with self._lock:
            for number, (zone, last) in enumerate(zip(self._zones, self._last, strict=True)):
                now = None if last is None else _read(zone)
                if last is not None and now is not None:
                    self._joules += (now - last + (zone.range if now < last else 0)) * 1e-6
                self._last[number] = now

    def _poll(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            self._look()


def _read(zone: Zone) -> int | None:
    try:
        return int(zone.file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


class GpuMeter:
    """The joules of GPUs, which are given by their UUIDs (`GPU-…`), since this was made.

    Volta and later GPUs count them, and parts of a GPU (MIG) do not. It needs the package nvidia-ml-py.
    """

    def __init__(self, uuids: Sequence[str]):
        self._nvml: Any = None
        self._handles: list[Any] = []
        try:
            import pynvml
        except ImportError:
            return
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
        self._began = self._millijoules()

    def read(self) -> Energy | None:
        """The energy up to now; None where not all of the GPUs tell it."""
        if self._nvml is None or not self._handles or self._began is None:
            return None
        now = self._millijoules()
        if now is None or now < self._began:  # the driver was loaded anew
            return None
        return Energy((now - self._began) / 1000, NVML, len(self._handles))

    def close(self) -> None:
        """Lets NVML go."""
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
            self._nvml = None

    def _millijoules(self) -> int | None:
        if self._nvml is None or not self._handles:
            return None
        read: Callable[[Any], int] = self._nvml.nvmlDeviceGetTotalEnergyConsumption
        try:
            return sum(read(handle) for handle in self._handles)
        except self._nvml.NVMLError:
            return None
