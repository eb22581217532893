"""The cost of a piece of work, and its sums over ranks and over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from siamtransfer.metering.energy import Energy

T = TypeVar("T", int, float)


@dataclass(frozen=True)
class Cost:
    """What one process spent, or several. A None is what the machine does not tell.

    Attributes:
        seconds: of the wall.
        images: that went through the network, or, of raw pixels, that were read; an image that goes through
            in several epochs or views counts as often. None where the work has no images.
        image_seconds: in which they did, reading included.
        cached_images: whose features were not computed but read from the cache.
        peak_memory_bytes: the largest resident memory of a process; of several the largest.
        workers, peak_worker_memory_bytes: how many workers decoded at once, and the peak of the largest,
            which contains the pages that it shares with its parent.
        device: its name.
        peak_device_memory_bytes: that torch has allocated on a GPU; of several the largest.
        energies: joules of whole devices.
        processes: that computed.
        since_step: of a run whose earlier cost is lost, the step from which on this counts.
    """

    seconds: float = 0.0
    images: float | None = None
    image_seconds: float = 0.0
    cached_images: float = 0.0
    peak_memory_bytes: int | None = None
    workers: int = 0
    peak_worker_memory_bytes: int | None = None
    device: str = "cpu"
    peak_device_memory_bytes: int | None = None
    energies: tuple[Energy, ...] = ()
    processes: int = 1
    since_step: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The entry `cost` of a record. What is not known has no key."""
        passed = self.images is not None
        speed = self.images / self.image_seconds if self.images and self.image_seconds else None
        values = {
            "seconds": round(self.seconds, 3),
            "images": None if self.images is None else round(self.images),
            "image_seconds": round(self.image_seconds, 3) if passed else None,
            "images_per_second": None if speed is None else float(f"{speed:.4g}"),
            "features_from_cache": round(self.cached_images) or None,
            "peak_memory_bytes": self.peak_memory_bytes,
            "workers": self.workers or None,
            "peak_worker_memory_bytes": self.peak_worker_memory_bytes,
            "device": self.device,
            "peak_device_memory_bytes": self.peak_device_memory_bytes,
            "energy_joules": round(sum(e.joules for e in self.energies), 3) if self.energies else None,
            "energy_source": "; ".join(e.source for e in self.energies) or None,
            "processes": self.processes,
            "since_step": self.since_step,
        }
        return {key: value for key, value in values.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """All values, for `from_json`."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return own | {"energies": [list(energy) for energy in self.energies]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Cost:
        """The cost of `to_json`.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        energies = tuple(Energy(*energy) for energy in values["energies"])
        return replace(cls(**values), energies=energies)


def over_ranks(costs: Sequence[Cost]) -> Cost:
    """The cost of processes that worked side by side: images and energies are sums, times and peaks are those
    of the largest."""
    return replace(
        _joined(costs),
        seconds=max(cost.seconds for cost in costs),
        image_seconds=max(cost.image_seconds for cost in costs),
        energies=_summed_energies([energy for cost in costs for energy in cost.energies]),
        processes=sum(cost.processes for cost in costs),
    )


def one_after_another(first: Cost, second: Cost) -> Cost:
    """The cost of two pieces of one work: a run and its continuation. Energy is known where both tell it."""
    counters = [{energy.counter: energy for energy in cost.energies} for cost in (first, second)]
    energies: tuple[Energy, ...] = ()
    if counters[0].keys() == counters[1].keys():
        energies = tuple(
            Energy(
                e.joules + counters[0][e.counter].joules,
                e.counter,
                max(e.devices, counters[0][e.counter].devices),
            )
            for e in second.energies
        )
    return replace(
        _joined([first, second]),
        seconds=first.seconds + second.seconds,
        image_seconds=first.image_seconds + second.image_seconds,
        energies=energies,
        processes=second.processes,
        device=second.device,
        since_step=first.since_step,
    )


def _joined(costs: Sequence[Cost]) -> Cost:
    return replace(
        costs[0],
        images=_of_known(sum, (cost.images for cost in costs)),
        cached_images=sum(cost.cached_images for cost in costs),
        peak_memory_bytes=_of_known(max, (cost.peak_memory_bytes for cost in costs)),
        workers=max(cost.workers for cost in costs),
        peak_worker_memory_bytes=_of_known(max, (cost.peak_worker_memory_bytes for cost in costs)),
        peak_device_memory_bytes=_of_known(max, (cost.peak_device_memory_bytes for cost in costs)),
    )


def _of_known(join: Callable[[list[T]], T], values: Iterable[T | None]) -> T | None:
    known = [value for value in values if value is not None]
    return join(known) if known else None


def _summed_energies(energies: Sequence[Energy]) -> tuple[Energy, ...]:
    """One energy for each kind of counter."""
    sums: dict[str, Energy] = {}
    for energy in energies:
        joules, _, devices = sums.get(energy.counter, Energy(0.0, energy.counter, 0))
        sums[energy.counter] = Energy(joules + energy.joules, energy.counter, devices + energy.devices)
    return tuple(sums.values())
