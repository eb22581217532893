"""What a monitor of a pretraining run is.

The loop asks `due(result)` after every step on every rank, and writes the row of numbers that `check(result)`
returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from siamtransfer.pretraining.step_result import StepResult


class Monitor(ABC):
    """Base of all monitors. `due` must give the same answer on every rank.

    Attributes:
        headline: names of the numbers whose last values go into the run's record.
        protocol: what these numbers depend on, for the record.
        takes_long: whether the state is saved before a check, which then must not change it.
    """

    takes_long = False

    def __init__(self, headline: tuple[str, ...] = (), protocol: dict[str, Any] | None = None):
        self.headline, self.protocol = headline, protocol or {}

    def begin(self) -> dict[str, float]:
        """The row before the first step of this process; empty for none."""
        return {}

    def conclude(self) -> str | None:
        """A remark on the finished run, for people and its record; None as a rule."""
        return None

    @abstractmethod
    def due(self, result: StepResult) -> bool:
        """Whether to measure after this step."""

    @abstractmethod
    def check(self, result: StepResult) -> dict[str, float]:
        """The row after a step; empty for none."""


class GradientObserver(Monitor):
    """Base of monitors that see the gradients of a step, after the check of all ranks and before the method
    changes them."""

    @abstractmethod
    def see_gradients(self, step: int) -> None:
        """Called in the step that will be number `step`; on the device the host need not wait here."""
