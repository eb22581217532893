"""How far a run is, for people: a bar on a terminal, plain lines elsewhere; both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from siamtransfer.utils.log import say

T = TypeVar("T")


class Stopwatch:
    """Images per second, and the fraction of the time that was spent waiting for data."""

    def __init__(self) -> None:
        self.mark = time.perf_counter()
        self.images = self.marked_images = 0
        self.waited = self.marked_waited = 0.0

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """Passes `batches` on, timing how long each was waited for."""
        source = iter(batches)
        while True:
            before = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            self.waited += time.perf_counter() - before
            yield batch

    def lap(self) -> tuple[float, float]:
        """(images per second, fraction of the time waiting for data) since the last lap."""
        now = time.perf_counter()
        seconds = max(now - self.mark, 1e-9)
        speed = (self.images - self.marked_images) / seconds
        fraction = (self.waited - self.marked_waited) / seconds
        self.mark, self.marked_images, self.marked_waited = now, self.images, self.waited
        return speed, min(fraction, 1.0)


class StepProgress:
    """Reports the training loop's steps; `say` passes other sentences through without breaking the bar."""

    def __init__(self, steps: int, start: int, every: int, *, shown: bool = True):
        self.steps, self.start, self.every, self.shown = steps, start, max(every, 1), shown
        self._began = time.perf_counter()
        self._bar: Progress | None = None
        if shown and sys.stderr.isatty():
            console = Console(stderr=True)
            self._bar = Progress(BarColumn(bar_width=24), TextColumn("{task.description}"), console=console)
            self._task = self._bar.add_task("starting", total=steps, completed=start)
            self._bar.start()

    def restart(self) -> None:
        """Measures the time left from now on."""
        self._began = time.perf_counter()

    def update(self, step: int, text: str) -> None:
        """Shows `text` for `step` steps done, with the time left at the mean speed so far."""
        if not self.shown:
            return
        text = f"{text} · ETA {duration(self._time_left(step))}"
        if self._bar:
            self._bar.update(self._task, completed=step, description=text)
        elif step % self.every == 0 or step == self.steps:
            say(f"[{step}/{self.steps}] {text}")

    def say(self, text: str) -> None:
        """Prints a sentence above the bar, or as a line."""
        if not self.shown:
            return
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            say(text)

    def close(self) -> None:
        """Takes the bar away; later words are ordinary lines."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _time_left(self, step: int) -> float:
        done = max(step - self.start, 1)
        return (time.perf_counter() - self._began) / done * (self.steps - step)


def duration(seconds: float) -> str:
    """`1:02:03`, `4:05` or `0:07`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
