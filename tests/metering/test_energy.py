"""Counters of energy: RAPL's files in a made-up /sys, and NVML behind a stand-in for its Python package."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path

import pytest

from siamtransfer.metering import energy
from siamtransfer.metering.energy import NVML, RAPL, RAPL_AND_MEMORY, Energy, GpuMeter, RaplMeter, rapl_zones

RANGE = 262_143_328_850  # microjoules, of a real package


def zone(folder: Path, path: str, name: str, joules: float | None) -> Path:
    """A zone of RAPL; without joules its counter cannot be read."""
    place = folder / path
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    (place / "max_energy_range_uj").write_text(f"{RANGE}\n")
    counter = place / "energy_uj"
    if joules is not None:
        set_joules(counter, joules)
    return counter


def set_joules(counter: Path, joules: float) -> None:
    counter.write_text(f"{round(joules * 1e6)}\n")


def test_packages_count_and_what_they_contain_or_what_contains_them_does_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 10)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 20)
    cores = zone(tmp_path, "intel-rapl:0:0", "core", 5)
    system = zone(tmp_path, "intel-rapl:2", "psys", 50)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 10)
    meter = RaplMeter(rapl_zones(tmp_path))
    for counter, joules in ((first, 13), (second, 24.5), (cores, 6), (system, 90)):
        set_joules(counter, joules)
    read = meter.read()
    meter.close()
    assert read is not None
    assert read.joules == pytest.approx(3 + 4.5)
    assert (read.counter, read.devices) == (RAPL, 2)
    assert read.source == "RAPL: 2 whole processor packages"


def test_memory_with_a_counter_of_its_own_is_added_and_named(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 1)
    meter = RaplMeter(rapl_zones(tmp_path))
    set_joules(package, 3)
    set_joules(memory, 1.5)
    read = meter.read()
    meter.close()
    assert read == Energy(pytest.approx(2.5), RAPL_AND_MEMORY, 1)
    assert read.source.endswith("package and the memory beside")


def test_a_counter_that_begins_anew_goes_on_from_its_range(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", RANGE / 1e6 - 2)
    meter = RaplMeter(rapl_zones(tmp_path))
    set_joules(counter, 3)
    first = meter.read()
    set_joules(counter, 4)
    second = meter.read()
    meter.close()
    assert first is not None and second is not None
    assert (first.joules, second.joules) == (pytest.approx(5), pytest.approx(6))


def test_the_thread_sees_a_counter_that_begins_anew_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "POLL_SECONDS", 0.001)
    values = iter([0, RANGE - 1, 5, RANGE - 1, 5])
    seen, over = [0], threading.Event()

    def read(_: energy.Zone) -> int:
        value = next(values, None)
        if value is None:
            over.set()
        else:
            seen.append(value)
        return seen[-1]

    monkeypatch.setattr(energy, "_read", read)
    meter = RaplMeter([energy.Zone(tmp_path / "intel-rapl:0" / "energy_uj", RANGE)])
    assert over.wait(30), "nobody but the thread reads here"
    found = meter.read()
    meter.close()
    assert found is not None
    assert found.joules == pytest.approx((2 * RANGE + 5) / 1e6)


def test_counters_that_only_root_may_read_are_no_counters(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", None)
    assert rapl_zones(tmp_path) == []
    assert rapl_zones(tmp_path / "absent") == []
    meter = RaplMeter([])
    assert meter.read() is None
    meter.close()


def test_a_counter_that_goes_away_leaves_no_number(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    meter = RaplMeter(rapl_zones(tmp_path))
    counter.unlink()
    assert meter.read() is None
    set_joules(counter, 7)
    assert meter.read() is None, "what happened meanwhile is not known"
    meter.close()


class Nvml(types.ModuleType):
    """What the meter uses of the package nvidia-ml-py: GPUs by UUID, millijoules, errors as exceptions."""

    class NVMLError(Exception):
        pass

    def __init__(self, millijoules: dict[str, int | None], *, driver: bool = True):
        super().__init__("pynvml")
        self.millijoules, self.driver, self.open = millijoules, driver, 0

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.millijoules:
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        value = self.millijoules[handle]
        if value is None:
            raise self.NVMLError("Not Supported")
        return value


def test_gpus_count_since_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml({"GPU-a": 1000, "GPU-b": 5000, "GPU-c": 0})
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = GpuMeter(["GPU-a", "GPU-b"])
    nvml.millijoules |= {"GPU-a": 3000, "GPU-b": 9500, "GPU-c": 10**9}
    assert meter.read() == Energy(6.5, NVML, 2)
    meter.close()
    meter.close()
    assert nvml.open == 0
    assert meter.read() is None


@pytest.mark.parametrize(
    "nvml",
    [
        pytest.param(Nvml({"GPU-a": None}), id="a GPU before Volta, or a part of one"),
        pytest.param(Nvml({}), id="another UUID"),
        pytest.param(Nvml({"GPU-a": 5}, driver=False), id="no driver"),
        pytest.param(None, id="no package"),
    ],
)
def test_gpus_that_do_not_tell_have_no_energy(monkeypatch: pytest.MonkeyPatch, nvml: Nvml | None) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = GpuMeter(["GPU-a"])
    assert meter.read() is None
    meter.close()


def test_a_counter_that_went_back_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml({"GPU-a": 1000})
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = GpuMeter(["GPU-a"])
    nvml.millijoules["GPU-a"] = 10
    assert meter.read() is None
    meter.close()
