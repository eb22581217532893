"""What the trainer does around every step: seed, write to the journal, stop on a signal.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter, get_event_storage

from siamtransfer.training.journal import Journal
from siamtransfer.training.progress import StepProgress
from siamtransfer.utils.log import say

EVERY = 20  # steps between rows of the journal, as between those of Detectron2's own writers


class SeedEachStep(HookBase):
    """Makes the random numbers of a step a function of (seed, step, rank).

    It seeds before the images are read and again before the model's forward pass: a loader that was just
    opened draws one number more than one that runs.
    """

    def before_train(self) -> None:
        self.trainer.model.register_forward_pre_hook(lambda *_: self.seed(use=1))

    def before_step(self) -> None:
        self.seed(use=0)

    def seed(self, use: int) -> None:
        words = np.random.SeedSequence([self.trainer.seed, self.trainer.iter, comm.get_rank(), use])
        seed_all_rng(int(words.generate_state(1)[0]))


class ScoreMissed(HookBase):
    """Makes up the scores in the course of a run that a signal ended; only a process that is alone ends
    there."""

    def before_train(self) -> None:
        trainer = self.trainer
        step, period = trainer.start, trainer.cfg.TEST.EVAL_PERIOD
        due = period > 0 and step % period == 0 and 0 < step < trainer.max_iter
        if due and comm.get_world_size() == 1:
            headline = trainer.finetune_run.task.headline
            if not trainer.journal.has(step, headline):
                trainer.score(step)


class StopOnSignal(HookBase):
    """Saves and ends the run on all ranks after a step in which a signal came to one of them."""

    def after_step(self) -> None:
        trainer = self.trainer
        status = max(comm.all_gather(trainer.stop.exit_status or 0))
        if not status or trainer.iter + 1 == trainer.max_iter:
            return
        trainer.checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)
        if comm.is_main_process():
            done = f"step {trainer.iter + 1} of {trainer.max_iter}"
            say(f"stopped on a signal after {done}; go on with --resume")
        sys.exit(status)


class JournalWriter(EventWriter):
    """Detectron2's numbers as rows of metrics.jsonl, and the progress line.

    `evaluation_names` gives the names that an evaluation has reported: the trainer writes those itself.
    """

    def __init__(self, folder: Path, start: int, steps: int, evaluation_names: Callable[[], Collection[str]]):
        self.evaluation_names = evaluation_names
        self.last = start - 1
        self.steps = steps
        self.journal = Journal(folder, start=start)
        self.progress = StepProgress(steps, start, max(EVERY, steps // 50 // EVERY * EVERY))

    def write(self) -> None:
        storage = get_event_storage()
        latest = storage.latest_with_smoothing_hint(EVERY).items()
        row = {name: float(value) for name, (value, step) in latest if self._is_new(name, step)}
        self.last = storage.iter
        if not row:
            return
        done = min(storage.iter + 1, self.steps)
        self.journal.write(done, row)
        if "total_loss" in row:
            self.progress.update(done, f"loss {row['total_loss']:.4f} · lr {row['lr']:.4g}")

    def _is_new(self, name: str, step: int) -> bool:
        return step > self.last and name not in self.evaluation_names()

    def close(self) -> None:
        self.progress.close()
        self.journal.close()
