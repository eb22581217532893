"""The loop of trainings in epochs: fine-tuning and linear classifiers. It can be stopped at any step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol, TypeVar

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.distributed.signals import Stopped, StopSignal
from siamtransfer.training.guard import StepReport
from siamtransfer.training.progress import StepProgress, Stopwatch
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.training.stopping import exit_stopped

UPDATE_PROGRESS = 100  # steps between updates of the progress bar within a long epoch

B = TypeVar("B")
Notes = dict[str, float]
"""What is noted after an epoch: metrics by name."""


class EpochTraining(Protocol[B]):
    """What `train_epochs` trains. A batch is a function of the step alone, so that any step can be the first.

    Attributes:
        loss_name: what the progress line calls the loss.
        progress_every: steps between progress lines where stderr is no terminal.
    """

    loss_name: str

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def progress_every(self) -> int: ...

    def samples(self, step: int) -> int:
        """How many samples `step` trains on, over all ranks."""

    def batches(self, start: int, steps: int) -> Iterator[B]:
        """This rank's share of the batches from step `start` up to `steps`."""

    def step(self, step: int, batch: B, exit_status: int | None) -> StepReport:
        """One update; raises UserError before it where the loss is not finite."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train_epochs(
    training: EpochTraining[B],
    epochs: int,
    runtime: Runtime,
    *,
    after_epoch: Callable[[int], Notes] = lambda epoch: {},
    saved: SavedTraining | None = None,
) -> list[Notes]:
    """Trains up to `epochs` epochs and returns what `after_epoch(epoch)` noted after each, epoch from 0.

    With `saved` the state is kept after every epoch and when a signal arrives, and the training goes on from
    the newest one. No other process uses its folder meanwhile.

    Raises:
        UserError: the loss is not finite; the saved state cannot be used; or its folder is in use.
        SystemExit: a signal arrived; the step in progress was completed. What `after_epoch` measures is
            given up in a process that is alone, and measured when the training goes on.
    """
    with saved.locked() if saved else contextlib.nullcontext():
        return _train_epochs(training, epochs, runtime, after_epoch, saved)


def _train_epochs(
    training: EpochTraining[B],
    epochs: int,
    runtime: Runtime,
    after_epoch: Callable[[int], Notes],
    saved: SavedTraining | None,
) -> list[Notes]:
    per_epoch = training.steps_per_epoch
    steps = epochs * per_epoch
    state = saved.load() if saved else None
    notes: list[Notes] = state["notes"] if state else []
    start = state.get("step", len(notes) * per_epoch) if state else 0
    if state:
        training.load_state_dict(state)

    def save(done: int) -> None:
        if saved:
            saved.save({"notes": notes, **training.state_dict()}, done)

    def end_epoch(done: int, stop: StopSignal) -> None:
        try:
            with stop.at_once(runtime.world_size == 1):  # the epoch is noted by the training that goes on
                noted = after_epoch(done // per_epoch - 1)
        except Stopped as end:
            save(done)
            leave(done, end.code, stop)
        notes.append(noted)
        save(done)

    def leave(done: int, status: int, stop: StopSignal) -> NoReturn:
        progress.close()
        exit_stopped(status, done, steps, runtime, saved=saved is not None, seconds=stop.seconds)

    clock = Stopwatch()
    progress = StepProgress(steps, start, training.progress_every, shown=runtime.is_main)
    with StopSignal() as stop:
        if len(notes) < start // per_epoch:
            end_epoch(start, stop)  # the signal came between the epoch's last step and its notes
        for step, batch in enumerate(clock.watch(training.batches(start, steps)), start):
            stop.doing = f"finishing step {step + 1}" + (", then saving" if saved else "")
            collectives.set_doing(f"at step {step + 1}")
            report = training.step(step, batch, stop.exit_status)
            clock.images += training.samples(step)
            done = step + 1
            if progress.tick(done) or done % per_epoch == 0 or done % UPDATE_PROGRESS == 0:
                speed, waiting = clock.lap()
                progress.update(
                    done,
                    f"epoch {done / per_epoch:.1f}/{epochs} · {training.loss_name} {report.loss:.4f} "
                    f"· {speed:.0f} images/s · data wait {waiting:.0%}",
                )
            if report.exit_status is not None:
                save(done)
                leave(done, report.exit_status, stop)
            if done % per_epoch == 0:
                end_epoch(done, stop)
                clock.lap()  # its time is not training's
    progress.close()
    return notes
