"""How far a run is, for people: a bar on a terminal, plain lines elsewhere; both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from siamtransfer.utils.log import say, unless_hung_up

T = TypeVar("T")

QUIET = 15.0  # seconds, after which a line comes at any step
LIVELY = 1.0  # seconds, the same for a bar
SLOW = 5.0  # seconds of a first step that is told by itself
WORTH_AN_ESTIMATE = 30.0  # seconds left
MEASURED_STEPS, MEASURED_SECONDS = 3, 20.0  # after which the time left is known well enough to be told


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

    def look(self) -> tuple[float, float]:
        """What `lap` would return; the lap goes on."""
        seconds = max(time.perf_counter() - self.mark, 1e-9)
        speed = (self.images - self.marked_images) / seconds
        return speed, min((self.waited - self.marked_waited) / seconds, 1.0)

    def lap(self) -> tuple[float, float]:
        """(images per second, fraction of the time waiting for data) since the last lap."""
        speed, fraction = self.look()
        self.mark, self.marked_images, self.marked_waited = time.perf_counter(), self.images, self.waited
        return speed, fraction


class StepProgress:
    """Reports the training loop's steps; `say` passes other sentences through without breaking the bar.

    A loop calls `tick` after every step. A line comes every so many steps, and where steps are slow after
    QUIET seconds. The time left is told as soon as a few steps after the first, which is slower, are
    measured.
    """

    def __init__(self, steps: int, start: int, every: int, *, shown: bool = True):
        self.steps, self.start, self.every, self.shown = steps, start, max(every, 1), shown
        self._estimated = self._line_due = False
        self.restart()
        self._bar: Progress | None = None
        if shown and sys.stderr.isatty():
            console = Console(stderr=True)
            self._bar = Progress(BarColumn(bar_width=24), TextColumn("{task.description}"), console=console)
            self._task = self._bar.add_task("starting", total=steps, completed=start)
            self._bar.start()

    def restart(self) -> None:
        """Measures the time left from now on, before the first step."""
        self._began = self._told = time.perf_counter()
        self._counted, self._first_seconds = self.start, 0.0

    def tick(self, step: int) -> bool:
        """Notes that `step` steps are done, and tells the time left once it is known.

        Returns whether `update` is due.
        """
        now = time.perf_counter()
        first = step == self.start + 1
        if first:
            self._first_seconds, self._began, self._counted = now - self._began, now, step
        self._estimate(step, now)
        slow = now - self._told >= (LIVELY if self._bar else QUIET) or (first and self._first_seconds >= SLOW)
        self._line_due = slow or step % self.every == 0 or step == self.steps
        return self._line_due

    def update(self, step: int, text: str) -> None:
        """Shows `text` for `step` steps done, with the time left at the mean speed so far."""
        if not self.shown:
            return
        text = f"{text} · ETA {duration(self._time_left(step))}"
        if self._bar:
            with unless_hung_up():
                self._bar.update(self._task, completed=step, description=text)
        elif self._line_due or step % self.every == 0 or step == self.steps:
            say(f"[{step}/{self.steps}] {text}")
        self._told, self._line_due = time.perf_counter(), False

    def say(self, text: str) -> None:
        """Prints a sentence above the bar, or as a line."""
        if not self.shown:
            return
        if self._bar:
            with unless_hung_up():
                self._bar.console.print(text, markup=False, highlight=False)
        else:
            say(text)

    def close(self) -> None:
        """Takes the bar away; later words are ordinary lines."""
        if self._bar:
            with unless_hung_up():
                self._bar.stop()
            self._bar = None

    def _estimate(self, step: int, now: float) -> None:
        """Says once how long the rest takes, where that is worth a line."""
        measured, seconds = step - self._counted, now - self._began
        if self._estimated or not measured or (measured < MEASURED_STEPS and seconds < MEASURED_SECONDS):
            return
        self._estimated = True
        left = self._time_left(step)
        if left >= WORTH_AN_ESTIMATE:
            self.say(
                f"about {duration(left)} left: {seconds / measured:.3g} s a step, {self.steps - step} steps; "
                "checks and saves come on top"
            )

    def _time_left(self, step: int) -> float:
        done = step - self._counted
        if not done:  # the first step is the only one so far, and slower than others
            return self._first_seconds * (self.steps - step)
        return (time.perf_counter() - self._began) / done * (self.steps - step)


def duration(seconds: float) -> str:
    """`1:02:03`, `4:05` or `0:07`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
