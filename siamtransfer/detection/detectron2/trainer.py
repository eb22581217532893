"""Detectron2's own trainer, made safe to stop and to resume, with weights that are proved loaded.

The random numbers of a step are a function of (seed, step), so a stopped run continues as if it had not been
stopped (to the bit with DATALOADER.NUM_WORKERS 0). SIGTERM and Ctrl-C save first. The evaluation is the one
that both engines share.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from siamtransfer.detection.detectron2.loader_workers import with_worker_init
from siamtransfer.detection.detectron2.optimizer import build_own_optimizer, has_own_optimizer
from siamtransfer.detection.detectron2.poly_lr import POLY, build_poly_lr
from siamtransfer.detection.detectron2.samplers import ResumedOrder
from siamtransfer.detection.detectron2.settings import fit_to_run, layout_of
from siamtransfer.detection.detectron2.trainer_hooks import (
    JournalWriter,
    ScoreMissed,
    SeedEachStep,
    StopOnSignal,
)
from siamtransfer.detection.detectron2.weights import ConvertedWeights, load_proved, load_published
from siamtransfer.detection.finetune_run import FinetuneRun
from siamtransfer.detection.tasks.task import Outputs
from siamtransfer.distributed.signals import Stopped, StopSignal
from siamtransfer.training.journal import Journal
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.zip_files import verify_zip

FINAL = "model_final.pth"


class Trainer(DefaultTrainer):
    """Detectron2's trainer for one fine-tuning run.

    After `train` or `test`: `metrics` in per cent and, on the main process, `outputs` to write beside
    them.
    """

    def __init__(self, run: FinetuneRun, stop: StopSignal):
        cfg = fit_to_run(run.initialization.settings, run.task, run.overrides)
        self.finetune_run, self.stop = run, stop
        self.seed = run.seed
        self.start = 0 if run.evaluate_only else steps_done(run.folder, cfg.SOLVER.MAX_ITER)
        self.sampler_step = self.start  # the step from which a train loader built now takes its images
        self.tensors_proved = 0
        self.metrics: dict[str, float] = {}
        self.outputs: Outputs
        self.journal: Journal | None = None
        cfg.OUTPUT_DIR, cfg.SEED = str(run.folder), run.seed
        cfg.freeze()
        if comm.is_main_process():
            steps, batch = cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH
            say(f"{run.name}: {steps} steps of {batch} images, in {run.folder}")
        seed_all_rng(run.seed)
        super().__init__(cfg)

    def guard_saves(self, guard: Callable[[], None]) -> None:
        """Has `guard` called before each checkpoint: it raises UserError where none may be written."""
        save = self.checkpointer.save

        def guarded(name: str, **content: Any) -> None:
            guard()
            save(name, **content)

        self.checkpointer.save = guarded

    def load_start(self) -> None:
        """Loads the initialization, proved, and over it the newest checkpoint of this run."""
        weights, cfg = self.finetune_run.initialization.weights, self.cfg
        if isinstance(weights, ConvertedWeights):
            self.tensors_proved = load_proved(self.model, weights.path, weights.state, layout_of(cfg))
        elif cfg.MODEL.WEIGHTS:
            self.tensors_proved = load_published(self.model, cfg.MODEL.WEIGHTS, layout_of(cfg))
        if comm.is_main_process():
            proved = f"{self.tensors_proved} tensors of the trunk are those of the weights"
            say(proved if self.tensors_proved else "from scratch")
        self.resume_or_load(resume=self.start > 0)

    def load_final_model(self) -> None:
        """Loads the trained model of a complete run.

        Raises:
            UserError: the run is not complete.
        """
        final = self.finetune_run.folder / FINAL
        if not final.is_file():
            raise UserError(
                f"--eval-only needs the trained model {final}, which does not exist; train it first"
            )
        _require_intact(final)
        self.checkpointer.load(str(final), checkpointables=[])

    def resume_or_load(self, resume: bool = True) -> None:
        """Resumes only: `load_start` has loaded the weights."""
        if resume:
            _require_intact(Path(self.checkpointer.get_checkpoint_file()))
            super().resume_or_load(resume=True)

    def state_dict(self) -> dict[str, Any]:
        """With the optimizer's state, which release 0.6 leaves out."""
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    def build_train_loader(self, cfg: Any) -> Any:
        """Detectron2's loader, on the images from `sampler_step` on."""
        skip = self.sampler_step * cfg.SOLVER.IMS_PER_BATCH
        return with_worker_init(self.finetune_run.task.train_loader(cfg, ResumedOrder(self.seed, skip)))

    @classmethod
    def build_optimizer(cls, cfg: Any, model: Any) -> Any:
        """Detectron2's SGD, or what this project's keys of SOLVER say."""
        if has_own_optimizer(cfg):
            return build_own_optimizer(cfg, model)
        return super().build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: Any, optimizer: Any) -> Any:
        """Detectron2's schedules, and PolyLR."""
        if cfg.SOLVER.LR_SCHEDULER_NAME == POLY:
            return build_poly_lr(cfg, optimizer)
        return super().build_lr_scheduler(cfg, optimizer)

    def build_hooks(self) -> list[Any]:
        """Detectron2's hooks, with the newest checkpoint kept only, between SeedEachStep and StopOnSignal."""
        self.sampler_step = 0  # precise statistics of norms always see the same images
        own = super().build_hooks()
        self.sampler_step = self.start
        for index, hook in enumerate(own):
            if isinstance(hook, hooks.PeriodicCheckpointer):
                period = self.cfg.SOLVER.CHECKPOINT_PERIOD
                own[index] = hooks.PeriodicCheckpointer(self.checkpointer, period, max_to_keep=1)
        return [ScoreMissed(), SeedEachStep(), *own, StopOnSignal()]

    def build_writers(self) -> list[Any]:
        """The journal; none when only evaluating."""
        if self.finetune_run.evaluate_only:
            return []
        steps, folder = self.cfg.SOLVER.MAX_ITER, self.finetune_run.folder
        writer = JournalWriter(folder, self.start, steps, lambda: self.metrics.keys())
        self.journal = writer.journal
        return [writer]

    def test(self, cfg: Any, model: Any, evaluators: Any = None) -> dict[str, float]:
        """The metrics in per cent on the main process, {} on the others."""
        done = self.finetune_run.evaluate_only
        return self.score(self.max_iter if done else min(self.iter + 1, self.max_iter))

    def score(self, step: int) -> dict[str, float]:
        """The metrics after `step` steps; see `test`.

        Raises:
            SystemExit: a signal came, and the process is alone; or several are, and everything is saved.
        """
        run = self.finetune_run
        saved = run.evaluate_only or step >= self.max_iter
        collector = run.task.collector(self.stop if saved else None)
        loader = with_worker_init(run.task.test_loader(self.cfg))
        try:
            with self.stop.at_once(comm.get_world_size() == 1):
                self.metrics = inference_on_dataset(self.model, loader, collector) or {}
        except Stopped as end:
            if not saved:
                self.checkpointer.save(f"model_{step - 1:07d}", iteration=step - 1)
            say("stopped on a signal while scoring; --resume scores again")
            sys.exit(end.code)
        if self.journal is not None:
            self.journal.write(step, self.metrics)
        if self.metrics:
            self.outputs = collector.outputs
            say(f"{run.name}: {run.task.measure} {self.metrics[run.task.headline]:.2f}")
        return self.metrics


def _require_intact(checkpoint: Path) -> None:
    """Raises UserError for a damaged checkpoint: Detectron2 would go on from other numbers."""
    try:
        verify_zip(checkpoint)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{checkpoint} is damaged ({error}): restore it from a copy, or remove {checkpoint.parent} and "
            "train again"
        ) from error


def steps_done(folder: Path, steps: int) -> int:
    """The number of steps that the newest checkpoint in the folder holds; `steps` for the final model."""
    tag = folder / "last_checkpoint"
    match = re.fullmatch(r"model_(\d+|final)\.pth", tag.read_text().strip()) if tag.is_file() else None
    if match is None:
        return 0
    return steps if match[1] == "final" else int(match[1]) + 1
