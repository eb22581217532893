"""What a pretraining run writes down and says: metrics.jsonl, config.json, progress, replaced images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from siamtransfer.data.unreadable import UnreadableImages
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.metering.meter import ImageClock, Meter
from siamtransfer.optim.optimizers import rate_at
from siamtransfer.pretraining.schedule import Schedule
from siamtransfer.pretraining.state import TrainState
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.training.journal import WRITE_FAILED, Journal
from siamtransfer.training.progress import StepProgress, Stopwatch
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_checked_text
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

T = TypeVar("T")


class Logger:
    """Rows of numbers, progress and messages of a run. Rank 0 writes; other ranks keep rows in memory.

    A resumed run's metrics.jsonl loses the rows after the restored step, which the run will write again; it
    begins with the `unwritten` rows of the checkpoint. Where the disk is full, the run stops after the next
    step (see `trouble`), and the checkpoint holds the rows that found no room.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainState,
        schedule: Schedule,
        runtime: Runtime,
        meter: Meter,
        unwritten: dict[str, Any] | None = None,
    ):
        self.state, self.schedule, self.runtime = state, schedule, runtime
        config = state.config
        self.clock, self._images = Stopwatch(), ImageClock(meter)
        if runtime.is_main:
            write_checked_text(folder / "config.json", to_json(config.as_dict()) + "\n")
        self.journal = Journal(
            folder if runtime.is_main else None,
            start=state.step,
            tensorboard=config.log.tensorboard,
            wandb=config.log.wandb,
            mlflow=config.log.mlflow,
            config=config.as_dict(),
            patient=True,
            unwritten=unwritten,
        )
        self._progress = StepProgress(schedule.steps, state.step, config.log.every, shown=runtime.is_main)
        self._unreadable = UnreadableImages(len(state.images), config.data.max_unreadable)
        self._to_report: list[tuple[str, str]] = []

    def introduce(self) -> None:
        """Says what is about to happen."""
        state, config, runtime = self.state, self.state.config, self.runtime
        if not runtime.is_main:
            return
        weights = sum(p.numel() for p in state.method.parameters()) / 1e6
        say(
            f"{config.method.name} · {state.method.backbone.name} ({weights:.1f} M weights with heads) · "
            f"{len(state.images)} images of {state.images.name}/{state.images.split} · batch size "
            f"{config.optim.batch_size} on {runtime.world_size} x {runtime.device.type} in "
            f"{runtime.precision} · steps {state.step} to {self.schedule.steps} · {config.run.dir}"
        )
        self._introduce_extension()
        if config.optim.grad_accum_steps > 1:
            images = config.optim.batch_size // runtime.world_size // config.optim.grad_accum_steps
            say(
                f"optim.grad_accum_steps {config.optim.grad_accum_steps}: batch-norm statistics, negatives "
                f"and correlations are those of {images} images a rank, not of the whole batch"
            )

    def _introduce_extension(self) -> None:
        """Says how the schedule goes on where the run has just got more epochs, and how it can get some."""
        state, step = self.state, self.state.step
        if step == self.schedule.steps:
            say(f"the run has done all its {step} steps; --optim.epochs with a larger number extends it")
        if not state.extensions or state.extensions[-1]["step"] != step:
            return
        before, now = state.extensions[-1]["epochs_before"], state.extensions[-1]["epochs"]
        settings, per_epoch = state.config.optim, self.schedule.steps_per_epoch
        old = replace(settings, epochs=before)
        rates = rate_at(old, max(step - 1, 0), per_epoch), rate_at(settings, step, per_epoch)
        last, following = (state.plateau.share * rate for rate in rates)
        say(
            f"optim.epochs {before} -> {now}: from here on the schedule {settings.schedule}, and those of "
            f"the method, are laid out over {now} epochs; the learning rate was {last:.4g} and goes on at "
            f"{following:.4g}. The first {step} steps had the schedule of {before} epochs, so this is no run "
            f"of {now} epochs from the start, and the record says so"
        )

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """Passes `batches` on and starts the clocks of speed, time left and waiting for data."""
        self._progress.restart()
        self.clock = Stopwatch()
        self._images.restart()
        return self.clock.watch(batches)

    def step(self, result: StepResult) -> None:
        """Counts a step; every `log.every` steps and after the last one, a row and a progress line. Where
        steps are slow, lines come in between."""
        config, steps = self.state.config, self.schedule.steps
        due = result.step % config.log.every == 0 or result.step == steps
        self.clock.images += config.optim.batch_size
        self._images.count(config.optim.batch_size / self.runtime.world_size)
        self._to_report += result.unreadable
        if due or result.stopping:
            self._report_unreadable()
        line_due = self._progress.tick(result.step)
        if due:
            self._write_row(result)
        elif line_due and self.runtime.is_main:
            self._tell(result, *self.clock.look())

    def trouble(self) -> int | None:
        """WRITE_FAILED on rank 0 where its disk is full or has failed, also at another attempt.

        Ranks exchange it in the step.
        """
        self.journal.retry()
        return None if self.journal.failure is None else WRITE_FAILED

    def leave_out_time(self) -> None:
        """The time since the last step is not training's."""
        self.clock.lap()
        self._images.restart()

    def _write_row(self, result: StepResult) -> None:
        speed, waiting = self.clock.lap()
        loss, epoch = result.report.loss, result.step / self.schedule.steps_per_epoch
        numbers = {"loss": loss, "lr": result.lr, "epoch": epoch}
        numbers |= {name: float(number) for name, number in result.output.numbers.items()}
        self.journal.write(result.step, {**numbers, "images_per_second": speed, "data_wait_share": waiting})
        self._tell(result, speed, waiting)

    def _tell(self, result: StepResult, speed: float, waiting: float) -> None:
        epoch, epochs = result.step / self.schedule.steps_per_epoch, self.state.config.optim.epochs
        self._progress.update(
            result.step,
            f"epoch {epoch:.1f}/{epochs} · loss {result.report.loss:.4f} · lr {result.lr:.4g} · "
            f"{speed:.3g} images/s · data wait {waiting:.0%}",
        )

    def row(self, step: int, numbers: dict[str, float]) -> None:
        """Writes `numbers` after `step` steps; nothing where there are none."""
        if numbers:
            self.journal.write(step, numbers)

    def say(self, text: str) -> None:
        """A message of rank 0, beside the progress bar."""
        self._progress.say(text)

    def latest(self, *names: str) -> dict[str, float]:
        """The last number of each name that has any."""
        found = {name: self.journal.latest(name) for name in names}
        return {name: point[1] for name, point in found.items() if point is not None}

    def summarise_unreadable(self) -> None:
        """Says how many images could not be read, if any."""
        if self._unreadable.count:
            say(self._unreadable.summary())

    def close(self) -> None:
        """Ends the progress bar and closes metrics.jsonl and its viewers; a second call changes nothing.

        Raises:
            UserError: on rank 0, rows could not be written.
        """
        self._progress.close()
        self.journal.close()

    def abandon(self) -> None:
        """`close` after an error, which is the one to tell."""
        with contextlib.suppress(UserError):
            self.close()

    def _report_unreadable(self) -> None:
        """Names the newly replaced images of all ranks.

        Raises:
            UserError: there are more of them than `data.max_unreadable` allows.
        """
        for where, why in collectives.all_gather_object(self._to_report):
            if self._unreadable.add(where, why):
                self.say(f"replaced an unreadable image: {where} ({why})")
        self._to_report.clear()
