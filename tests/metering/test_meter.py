"""The meter: what counts, for whom, and that peaks are those of the block."""

from __future__ import annotations

import dataclasses
import mmap
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from siamtransfer.metering import memory, meter
from siamtransfer.metering.cost import Cost, one_after_another, over_ranks
from siamtransfer.metering.energy import NVML, RAPL, Energy
from siamtransfer.metering.meter import ImageClock, count_cached, current_cost, metered, not_counted

MIB = 2**20
GPUS = Energy(100.0, NVML, 1)


def touch(mebibytes: int) -> None:
    """Holds so much memory for a moment: fresh pages of the system, none that the process had before."""
    with mmap.mmap(-1, mebibytes * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        np.frombuffer(pages, np.uint8).fill(1)


def test_nothing_counts_without_a_meter() -> None:
    ImageClock().count(5)
    count_cached(5)
    assert current_cost() is None


def test_images_and_their_time_count_and_what_lies_between_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    with metered() as own:
        clock = ImageClock()
        for batch in clock.watch([8, 8, 4]):
            now[0] += 2  # the forward pass
            clock.count(batch)
            now[0] += 50  # something else
        cost = own.read().as_dict()
    assert (cost["images"], cost["image_seconds"], cost["images_per_second"]) == (20, 6, 3.333)
    assert cost["seconds"] == 156


def test_features_of_the_cache_are_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    with metered() as own:
        count_cached(300)
        cost = own.read().as_dict()
    assert (cost["images"], cost["features_from_cache"]) == (0, 300)
    assert "images_per_second" not in cost


def test_work_without_images_has_none() -> None:
    with metered() as own:
        cost = own.read().as_dict()
    assert not cost.keys() & {"images", "image_seconds", "images_per_second", "energy_joules", "workers"}
    assert cost["processes"] == 1


def test_an_inner_block_counts_for_the_outer_too_and_a_block_apart_for_none() -> None:
    with metered() as outer:
        outer.count(1, 0.5)
        with metered() as inner:
            ImageClock().count(10)
        with not_counted():
            ImageClock().count(100)
            ImageClock(outer).count(1000)
        assert inner.read().images == 10
        assert outer.read().images == 1011
        assert outer.read().processes == 1


needs_reset = pytest.mark.skipif(not memory.reset_peak(), reason="the system has no peak that begins anew")


@needs_reset
def test_the_peak_is_that_of_the_block() -> None:
    with metered() as outer:
        touch(80)
        with metered() as inner:
            touch(5)
            small = inner.read().peak_memory_bytes
        large = outer.read().peak_memory_bytes
        with metered() as second:
            touch(130)
        largest = outer.read().peak_memory_bytes
    assert small is not None and large is not None and largest is not None
    assert large - small > 50 * MIB
    assert largest - large > 30 * MIB
    assert second.read().peak_memory_bytes is not None


def test_without_proc_the_peak_of_the_life_is_taken_and_workers_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PROC", tmp_path)
    assert not memory.reset_peak()
    assert memory.peak_bytes() > 10 * MIB  # type: ignore[operator]
    assert memory.peak_bytes(1) is None


@needs_reset
def test_workers_are_seen_while_they_decode() -> None:
    others = len(memory.worker_peaks())  # a server that an earlier test has started
    loader = torch.utils.data.DataLoader(Large(), batch_size=1, num_workers=2)
    with metered() as own:
        clock = ImageClock()
        for _ in loader:
            clock.count(1)
            own._looked_at_workers = 0.0
        cost = own.read().as_dict()
    assert 1 <= cost["workers"] <= others + 2
    assert cost["peak_worker_memory_bytes"] > 60 * MIB


class Large(torch.utils.data.Dataset[int]):
    """Each item takes 60 MiB for a moment."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        touch(60)
        return index


def test_a_gpu_is_named_and_its_peak_begins_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    allocated = [9 * MIB]
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(name="NVIDIA H200", uuid="a")
    )
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: allocated.__setitem__(0, 0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: allocated[0])
    joules = iter([GPUS] * 9)

    class Counter:
        def __init__(self, uuids: list[str]):
            assert uuids == ["GPU-a"]

        def read(self) -> Energy:
            return next(joules)

        def close(self) -> None:
            pass

    monkeypatch.setattr(meter, "GpuMeter", Counter)
    with metered() as outer:
        meter.watch_gpu(0)
        allocated[0] = 5 * MIB
        meter.watch_gpu(0)
        assert allocated == [5 * MIB], "what is watched already goes on"
        with metered() as inner:
            assert allocated == [0]
            allocated[0] = 2 * MIB
            own = inner.read().as_dict()
        whole = outer.read().as_dict()
    assert (own["device"], own["peak_device_memory_bytes"]) == ("NVIDIA H200", 2 * MIB)
    assert whole["peak_device_memory_bytes"] == 5 * MIB
    assert (own["energy_joules"], own["energy_source"]) == (100, "NVML: 1 whole GPU")


RANK = Cost(10.0, 100, 4.0, 0, 5 * MIB, 2, MIB, "NVIDIA H200", 7 * MIB, (GPUS,))


def test_ranks_add_up_to_one_cost() -> None:
    slow = dataclasses.replace(
        RANK, seconds=12.0, images=90, image_seconds=5.0, peak_memory_bytes=8 * MIB,
        energies=(GPUS, Energy(40.0, RAPL, 2)),
    )  # fmt: skip
    cost = over_ranks([RANK, slow]).as_dict()
    assert (cost["seconds"], cost["images"], cost["image_seconds"]) == (12, 190, 5)
    assert cost["images_per_second"] == 38
    assert (cost["peak_memory_bytes"], cost["peak_device_memory_bytes"]) == (8 * MIB, 7 * MIB)
    assert (cost["processes"], cost["workers"]) == (2, 2)
    assert cost["energy_joules"] == 240
    assert cost["energy_source"] == "NVML: 2 whole GPUs; RAPL: 2 whole processor packages"


def test_pieces_of_a_run_add_up_and_energy_is_left_out_where_a_piece_does_not_tell_it() -> None:
    both = one_after_another(RANK, RANK)
    assert (both.seconds, both.images, both.image_seconds) == (20, 200, 8)
    assert both.energies == (Energy(200.0, NVML, 1),)
    assert both.processes == 1
    silent = dataclasses.replace(RANK, energies=())
    assert one_after_another(RANK, silent).energies == ()
    assert one_after_another(silent, RANK).energies == ()


def test_a_cost_is_read_back_as_it_was() -> None:
    assert Cost.from_json(RANK.to_json()) == RANK
    with pytest.raises(KeyError):
        Cost.from_json({"seconds": 1.0})
    with pytest.raises(TypeError):
        Cost.from_json({**RANK.to_json(), "unknown": 1})
