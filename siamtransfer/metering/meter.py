"""The meter of a program: started around its work, fed by its passes over images, read at its end.

    with metered() as meter:
        ...                     # somewhere inside: count_images(len(batch), seconds)
        meter.read()

Where no meter runs, as in a script that calls single functions, counting does nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from siamtransfer.metering.cost import Cost, one_after_another, over_ranks
from siamtransfer.metering.energy import Energy, GpuMeter, RaplMeter, rapl_zones
from siamtransfer.metering.memory import peak_bytes, reset_peak, worker_peaks

T = TypeVar("T")

WORKERS_SECONDS = 1.0  # between two looks at the memory of workers

_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


class Meter:
    """Counts from its making on; see `metered`. Peaks are those since then, where the system can begin anew.

    Attributes:
        others: the costs of the other ranks, once they are known.
        before: the cost of what a resumed run did earlier.
    """

    def __init__(self, outer: Meter | None = None, *, packages: bool = True):
        self._began = time.perf_counter()
        self._outer = outer
        self._own = Cost(device=processor_name())
        self._watched: list[int] = []
        self._gpus: GpuMeter | None = None
        self._rapl = RaplMeter(rapl_zones() if packages else [])
        self._looked_at_workers = 0.0
        self.others: list[Cost] = []
        self.before: Cost | None = None
        if outer is not None:
            outer.note_peaks()
        reset_peak()
        if outer is not None and outer._watched:
            self.watch_gpus(outer._watched)

    def watch_gpus(self, indices: Sequence[int]) -> None:
        """Counts memory and energy of these CUDA devices, too, from now on. Those that it counts already go
        on; others take their place."""
        if self._watched == list(indices):
            return
        import torch

        if self._gpus is not None:
            self.note_peaks()
            self._gpus.close()
        self._watched = list(indices)
        properties = [torch.cuda.get_device_properties(index) for index in indices]
        for index in indices:
            torch.cuda.reset_peak_memory_stats(index)
        self._gpus = GpuMeter([f"GPU-{one.uuid}" for one in properties if hasattr(one, "uuid")])
        self._own = replace(self._own, device=", ".join(dict.fromkeys(one.name for one in properties)))

    def count(self, images: float, seconds: float) -> None:
        """Notes that `images` more have gone through the network, within `seconds`."""
        own = self._own
        self._own = replace(
            own, images=(own.images or 0.0) + images, image_seconds=own.image_seconds + seconds
        )
        now = time.perf_counter()
        if now - self._looked_at_workers >= WORKERS_SECONDS:
            self._looked_at_workers = now
            self._note_workers(worker_peaks())

    def count_cached(self, images: float) -> None:
        """Notes that the features of `images` were read instead of computed."""
        self._own = replace(
            self._own, images=self._own.images or 0.0, cached_images=self._own.cached_images + images
        )

    def note_peaks(self) -> None:
        """Keeps the peaks up to now, so that they may begin anew."""
        memory = [self._own.peak_memory_bytes, peak_bytes()]
        device = [self._own.peak_device_memory_bytes]
        if self._watched:
            import torch

            device += [torch.cuda.max_memory_allocated(index) for index in self._watched]
        self._own = replace(
            self._own,
            peak_memory_bytes=max((peak for peak in memory if peak is not None), default=None),
            peak_device_memory_bytes=max((peak for peak in device if peak is not None), default=None),
        )

    def read_own(self) -> Cost:
        """The cost of this process since the start."""
        self.note_peaks()
        found: list[Energy | None] = [self._gpus.read() if self._gpus else None, self._rapl.read()]
        return replace(
            self._own,
            seconds=time.perf_counter() - self._began,
            energies=tuple(energy for energy in found if energy is not None),
        )

    def read(self) -> Cost:
        """The cost up to now: of this process, of the other ranks as far as known, and of the time before."""
        cost = over_ranks([self.read_own(), *self.others])
        if self.before is None:
            return cost
        if not self.before.seconds:  # nothing is known of it
            return replace(cost, since_step=self.before.since_step)
        return one_after_another(self.before, cost)

    def close(self) -> None:
        """Ends the counting, and tells the meter around this one what it counted."""
        if self._outer is not None:
            self._outer.add(self.read_own())
        self._rapl.close()
        if self._gpus:
            self._gpus.close()

    def add(self, inner: Cost) -> None:
        """Adds the images and the peaks of a part of the work, whose time and energy this meter counts
        itself."""
        both = one_after_another(self._own, inner)
        self._own = replace(both, seconds=0.0, device=self._own.device, energies=(), processes=1)

    def _note_workers(self, peaks: dict[int, int]) -> None:
        if peaks:
            largest = max(self._own.peak_worker_memory_bytes or 0, *peaks.values())
            workers = max(self._own.workers, len(peaks))
            self._own = replace(self._own, workers=workers, peak_worker_memory_bytes=largest)


@contextlib.contextmanager
def metered(*, packages: bool | None = None) -> Iterator[Meter]:
    """A meter for the block, the current one there. Inside another meter's block it counts for both.

    Args:
        packages: whether the energy of the processor packages counts; None: in torchrun's first process of a
            machine, or in a process that is alone.
    """
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    meter = Meter(_meter.get(), packages=first if packages is None else packages)
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)
        meter.close()


@contextlib.contextmanager
def not_counted() -> Iterator[None]:
    """A block without a current meter: only clocks that have one of their own count there."""
    token = _meter.set(None)
    try:
        yield
    finally:
        _meter.reset(token)


def current_meter() -> Meter | None:
    """The meter of the innermost block that this code runs in."""
    return _meter.get()


def current_cost() -> dict[str, Any] | None:
    """What the current meter reads, as the entry `cost` of a record."""
    meter = _meter.get()
    return None if meter is None else meter.read().as_dict()


class ImageClock:
    """Counts the images of a pass with the time that they take, batch by batch, for `meter`, or else for the
    one that is current then."""

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = meter
        self.restart()

    def restart(self) -> None:
        """Leaves out the time up to now."""
        self._mark = time.perf_counter()

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """Passes `batches` on; the clock starts anew when the next one is asked for. So what is done between
        `count` and the next batch takes no time."""
        source = iter(batches)
        while True:
            self.restart()
            try:
                batch = next(source)
            except StopIteration:
                return
            yield batch

    def count(self, images: float) -> None:
        """Notes that this process has passed `images` more."""
        now, meter = time.perf_counter(), self._meter or _meter.get()
        if meter is not None:
            meter.count(images, now - self._mark)
        self._mark = now


def count_cached(images: float) -> None:
    """Notes that the features of `images` images came from the cache."""
    meter = _meter.get()
    if meter is not None:
        meter.count_cached(images)


def watch_gpu(index: int) -> None:
    """Lets the current meter count memory and energy of a CUDA device."""
    meter = _meter.get()
    if meter is not None:
        meter.watch_gpus([index])


@functools.cache
def processor_name() -> str:
    """The name of the processor, as Linux or Python know it; else `cpu`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return f"cpu: {value.strip()}"
    return f"cpu: {platform.processor()}" if platform.processor() else "cpu"
