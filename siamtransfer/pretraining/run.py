"""The folder of a pretraining run: its lock, its checkpoints and its record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.config import PretrainConfig
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.metering.meter import metered, not_counted
from siamtransfer.pretraining.logger import Logger
from siamtransfer.pretraining.monitors import Monitor
from siamtransfer.pretraining.run_cost import RunCost
from siamtransfer.pretraining.schedule import Schedule
from siamtransfer.pretraining.state import TrainState
from siamtransfer.pretraining.step_result import SAVE_WISH, StepResult
from siamtransfer.records.metric_names import with_aliases
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.run_lock import RunLock

HEADLINE = ("loss", "health/std", "health/effective_rank", "health/centre_norm", "health/view_cosine")
"""The numbers of the record, besides those of the monitors."""


class RunFolder(contextlib.ExitStack):
    """A run's folder, locked by rank 0 until the end of the `with` block, which closes what was entered.

    Raises:
        UserError: the folder cannot be written, or another process uses it.
    """

    def __init__(self, config: PretrainConfig, runtime: Runtime):
        super().__init__()
        self.config, self.runtime, self.path = config, runtime, Path(config.run.dir)
        with collectives.own_pace("locking the run's folder"):
            if runtime.is_main:
                self.enter_context(RunLock(self.path))
        self.checkpoints = Checkpoints(self.path, config.checkpoint.keep)
        meter = self.enter_context(metered())
        if runtime.device.type == "cuda":
            meter.watch_gpus([runtime.device.index])
        self.enter_context(not_counted())  # the images of monitors are not trained on
        self.cost = RunCost(self.path, meter, runtime)
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._told_time = False

    def find_checkpoint(self, *, resume: bool) -> dict[str, Any] | None:
        """The newest valid checkpoint, the same on every rank; None begins a new run.

        Raises:
            UserError: the folder holds a run and `resume` is False; all checkpoints are damaged; the ranks
                find different ones.
        """
        checkpoints, is_main = self.checkpoints, self.runtime.is_main
        if not resume:
            with collectives.own_pace("looking for checkpoints"):
                if is_main:
                    checkpoints.clean()
                if checkpoints.any():
                    raise UserError(
                        f"{self.path} holds a run already: go on with it by --resume, choose another folder "
                        "with --run.dir, or remove it"
                    )
            return None
        with collectives.own_pace("reading the checkpoint"):
            if is_main:
                checkpoints.clean()
            saved = checkpoints.load_newest(say if is_main else lambda _: None)
        step = saved["progress"]["step"] if saved is not None else 0
        if collectives.broadcast_object(step) != step:
            raise UserError(
                "not every rank finds the same checkpoint: put --run.dir on a disk that all machines share"
            )
        if is_main:
            checkpoints.publish_newest()
            if saved is None:
                say(f"nothing to resume in {self.path}: starting from the beginning")
        return saved

    def open_log(self, state: TrainState, schedule: Schedule) -> Logger:
        """The run's log from `state.step` on; it is closed with the folder."""
        log = Logger(self.path, state, schedule, self.runtime, self.cost.meter)
        self.callback(log.close)
        self.cost.go_on(state.step)
        return log

    def save_due(self, result: StepResult, steps: int) -> bool:
        """Whether the state has to be saved, the same on every rank: every so many steps, at the wish that
        rank 0 has by its clock, after the last of `steps`, and before the run stops on a signal."""
        every = self.config.checkpoint.every_steps
        return (
            result.step == steps
            or result.stopping
            or (every > 0 and result.step % every == 0)
            or (result.save_wished and result.step > self._saved_step + 1)  # not one of before the last save
        )

    def save_wish(self) -> int | None:
        """SAVE_WISH on rank 0, where the last save is `checkpoint.every_minutes` ago; ranks exchange it in
        the step, so that all of them wait for the save."""
        minutes = self.config.checkpoint.every_minutes
        due = minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes
        return SAVE_WISH if due and self.runtime.is_main else None

    def save(self, state: TrainState) -> None:
        """Rank 0 writes a checkpoint and publishes it as checkpoint.pth (see `Checkpoints.save`), while the
        others wait at the store."""
        began = time.monotonic()
        content = state.state_dict()  # on every rank, for shares are gathered
        with collectives.own_pace("saving the state"):
            if self.runtime.is_main:
                self.checkpoints.save(content, state.step)
        self.cost.keep()
        self._saved_at, self._saved_step = time.monotonic(), state.step
        if self.runtime.is_main and not self._told_time:
            say(f"saving takes {self._saved_at - began:.1f} s")
        self._told_time = True

    @property
    def good(self) -> Path:
        """The state that an adaptation keeps as good (pretraining/retention.py)."""
        return self.path / "good.pth"

    def keep_good(self, step: int) -> None:
        """Makes the state of `step`, which is the newest saved, the good one."""
        with collectives.own_pace("keeping the good state"):
            if self.runtime.is_main:
                self.checkpoints.publish_as(self.good, step)

    def record(self, state: TrainState, log: Logger, monitors: Sequence[Monitor]) -> dict[str, Any]:
        """The record of a finished run: its last numbers, the configuration, and where the checkpoint is."""
        metrics = log.latest(*HEADLINE)
        protocol: dict[str, Any] = {"config": self.config.as_dict(), "steps": log.schedule.steps}
        for monitor in monitors:
            metrics |= log.latest(*monitor.headline)
            protocol |= monitor.protocol
            remark = getattr(monitor, "conclude", lambda: None)()  # users' may not have it
            if remark is not None:
                say(f"remark: {remark}")
                protocol["remarks"] = [*protocol.get("remarks", []), remark]
        protocol |= {"chosen": state.chosen} if state.chosen else {}
        protocol |= {"extensions": state.extensions} if state.extensions else {}
        metrics["collapse_alarms"] = len(state.collapse.alarms)
        kept = state.forgetting
        if kept.start is not None:
            metrics["forgetting_alarms"] = len(kept.alarms)
        if kept.kept_step is not None:
            say(f"the good state, of step {kept.kept_step}, is {self.good}")
        log.summarise_unreadable()
        say(f"done: {self.checkpoints.published}")
        return record(
            "pretrain",
            with_aliases(metrics),
            protocol,
            checkpoint=str(self.checkpoints.published),
            **({} if kept.kept_step is None else {"good_checkpoint": str(self.good)}),
            data_fingerprint=state.images.fingerprint,
            cost=self.cost.meter.read().as_dict(),
        )
