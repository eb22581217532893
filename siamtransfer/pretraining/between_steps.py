"""What a run does between two steps: it measures what is due, and saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siamtransfer.methods import StepInfo
from siamtransfer.pretraining.logger import Logger
from siamtransfer.pretraining.monitor import GradientObserver, Monitor
from siamtransfer.pretraining.run import RunFolder
from siamtransfer.pretraining.state import TrainState
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.training.step import Updater


@dataclass(frozen=True, eq=False)
class BetweenSteps:
    """The measurements and saves of a run of `steps` steps."""

    run: RunFolder
    state: TrainState
    monitors: Sequence[Monitor]
    updater: Updater
    log: Logger
    steps: int

    def begin(self) -> None:
        """The rows before the first step of this process; from the next step on, observers see gradients."""
        observers = [monitor for monitor in self.monitors if isinstance(monitor, GradientObserver)]
        if observers:
            self.updater.see_gradients = lambda info: self._show_gradients(observers, info)
        for monitor in self.monitors:
            with self.updater.measuring():
                self.log.row(self.state.step, monitor.begin())

    def _show_gradients(self, observers: Sequence[GradientObserver], info: StepInfo) -> None:
        for observer in observers:
            observer.see_gradients(info.step + 1)

    def follow(self, result: StepResult) -> None:
        """After a step: short measurements, the save that is due, long measurements.

        The state is saved before a long measurement, so that a kill within it costs no step.
        """
        self.log.step(result)
        self.log.schedule.follow(self.state.plateau, result.step, result.report)
        due = [monitor for monitor in self.monitors if monitor.due(result)]
        long = [monitor for monitor in due if getattr(monitor, "takes_long", False)]  # users' may not say
        self._measure([monitor for monitor in due if monitor not in long], result)
        if (long or self.run.save_due(result, self.steps)) and self.updater.is_sound:
            self.run.save(self.state)
        self._measure(long, result)

    def _measure(self, monitors: Sequence[Monitor], result: StepResult) -> None:
        """Writes the row of each monitor; the time that they take is not training's."""
        for monitor in monitors:
            with self.updater.measuring():
                self.log.row(result.step, monitor.check(result))
            self.log.leave_out_time()
