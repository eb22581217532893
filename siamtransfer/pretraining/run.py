"""The folder of a pretraining run: its lock, its checkpoints and its record."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.config import PretrainConfig
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.metering.meter import metered, not_counted
from siamtransfer.pretraining.logger import Logger
from siamtransfer.pretraining.monitor import Monitor
from siamtransfer.pretraining.run_cost import RunCost
from siamtransfer.pretraining.schedule import Schedule
from siamtransfer.pretraining.state import TrainState
from siamtransfer.pretraining.step_result import SAVE_WISH, StepResult
from siamtransfer.records.metric_names import with_aliases
from siamtransfer.records.record import record
from siamtransfer.training.journal import UNWRITTEN, WRITE_FAILED
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.run_lock import RunLock

HEADLINE = ("loss", "health/std", "health/effective_rank", "health/centre_norm", "health/view_cosine")
"""The numbers of the record, besides those of the monitors."""

LOGS = (
    *("config.json", "config.json.sha256", "cost.json", "cost.json.sha256"),
    *("metrics.jsonl", "metrics.jsonl.crc32"),
)
"""What a run writes before its first step."""


class RunFolder(contextlib.ExitStack):
    """A run's folder, locked by rank 0 until the end of the `with` block, which closes what was entered.

    Raises:
        UserError: the folder cannot be written, or another process uses it.
    """

    def __init__(self, config: PretrainConfig, runtime: Runtime):
        super().__init__()
        self.config, self.runtime, self.path = config, runtime, Path(config.run.dir).expanduser()
        self._lock: RunLock | None = None
        with collectives.own_pace("locking the run's folder"):
            if runtime.is_main:
                self._lock = self.enter_context(RunLock(self.path))
                self.push(self._remove_refused)
        self.checkpoints = Checkpoints(self.path, config.checkpoint.keep, guard=self._require_place)
        meter = self.enter_context(metered())
        if runtime.device.type == "cuda":
            meter.watch_gpus([runtime.device.index])
        self.enter_context(not_counted())  # the images of monitors are not trained on
        self.cost = RunCost(self.path, meter, runtime)
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._log: Logger | None = None
        self._unwritten: dict[str, Any] | None = None
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
        self._unwritten = saved.pop(UNWRITTEN, None) if saved is not None else None
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
        with collectives.own_pace("opening the log"):
            self._require_place()
            log = Logger(self.path, state, schedule, self.runtime, self.cost.meter, self._unwritten)
            self.callback(log.abandon)
            self.cost.go_on(state.step)
        self._log = log
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
        others wait at the store.

        Raises:
            UserError: the disk is full or has failed, or the folder is no longer this run's; names the newest
                state that is whole.
        """
        began = time.monotonic()
        content = state.state_dict()  # on every rank, for shares are gathered
        with collectives.own_pace("saving the state"), self._telling_what_is_whole():
            if self.runtime.is_main:
                unwritten = self._log.journal.unwritten() if self._log is not None else {}
                self.checkpoints.save(content | ({UNWRITTEN: unwritten} if unwritten else {}), state.step)
        with self._telling_what_is_whole():
            self.cost.keep()
        self._saved_at, self._saved_step = time.monotonic(), state.step
        if self.runtime.is_main and not self._told_time:
            say(f"saving takes {self._saved_at - began:.1f} s")
        self._told_time = True

    @contextlib.contextmanager
    def _telling_what_is_whole(self) -> Iterator[None]:
        """Adds to the sentence about a save that failed which state a run can go on from."""
        try:
            yield
        except UserError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            raise UserError(f"{error}; {self._what_is_whole()}") from error.__cause__

    def _what_is_whole(self) -> str:
        step = self.checkpoints.newest_step()
        if step is None:
            return "no state of this run is on the disk yet"
        return f"the state of step {step} is whole: go on with --resume {shlex.quote(str(self.path))}"

    def close_log(self, log: Logger, exit_status: int | None) -> None:
        """Closes the log after the last step, on rank 0.

        Raises:
            UserError: rows found no room, which may be why the run stops; the saved state holds them.
        """
        with self._telling_what_is_whole():
            log.close()
        if exit_status == WRITE_FAILED:
            raise UserError(
                f"the disk of {self.path} was full for a while; all rows are written now, and "
                f"{self._what_is_whole()}"
            )

    def _require_place(self) -> None:
        """Raises UserError where the run's folder was removed, renamed or replaced."""
        if self._lock is not None:
            self._lock.require_place()

    def _remove_refused(self, kind: type[BaseException] | None, error: BaseException | None, *_: Any) -> bool:
        """Removes what a run that was refused before any work has written into a folder that was new."""
        lock = self._lock
        refused = isinstance(error, UserError | KeyboardInterrupt | SystemExit)
        if not refused or lock is None or not lock.was_empty or not lock.is_in_place():
            return False
        with contextlib.suppress(OSError):
            if self.checkpoints.any() or self._has_rows():
                return False
            for name in LOGS:
                (self.path / name).unlink(missing_ok=True)
            for events in (self.path / "tensorboard").glob("*tfevents*"):
                events.unlink()
            with contextlib.suppress(FileNotFoundError):
                (self.path / "tensorboard").rmdir()
        return False

    def _has_rows(self) -> bool:
        journal = self.path / "metrics.jsonl"
        return journal.exists() and journal.stat().st_size > 0

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
