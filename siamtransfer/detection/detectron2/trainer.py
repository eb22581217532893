"""Detectron2's own trainer, with what a trusted number needs besides.

That is: weights that are proved loaded, random numbers that are a function of (seed, step), so that a stopped
run goes on as if it had not been (bit by bit with DATALOADER.NUM_WORKERS 0), SIGTERM and Ctrl-C that save
first, and the evaluation that all engines share.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.detectron2.config import layout
from siamtransfer.detection.detectron2.weights import ConvertedWeights, load_proved, load_published
from siamtransfer.detection.metrics.evaluate import ApKind, evaluate
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.distributed.runtime import StopSignal
from siamtransfer.training.journal import Journal
from siamtransfer.training.progress import StepProgress
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

FINAL = "model_final.pth"
EVERY = 20  # steps between rows of the journal, as between those of Detectron2's own writers


@dataclass(frozen=True, eq=False)
class Job:
    """One training and its evaluation.

    name: for people; folder: the job's own; weights: converted ones, or None where cfg.MODEL.WEIGHTS says
    which (a file of Detectron2's, or nothing: from scratch); evaluate_only: score the trained model again.
    """

    name: str
    folder: Path
    cfg: Any
    seed: int
    data: DetectionData
    metric: ApKind
    weights: ConvertedWeights | None
    evaluate_only: bool = False

    @property
    def start(self) -> int:
        """The number of steps that the newest checkpoint holds."""
        tag = self.folder / "last_checkpoint"
        found = re.fullmatch(r"model_(\d+|final)\.pth", tag.read_text().strip()) if tag.is_file() else None
        if found is None:
            return 0
        return self.cfg.SOLVER.MAX_ITER if found[1] == "final" else int(found[1]) + 1


@functools.cache
def trainer_class() -> type:
    """The trainer's class, made where Detectron2 may be imported."""
    from detectron2.engine import DefaultTrainer, HookBase, hooks
    from detectron2.evaluation import inference_on_dataset
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng
    from detectron2.utils.events import EventWriter, get_event_storage

    class Seeds(HookBase):
        """Makes the random numbers of a step a function of (seed, step, rank): those of the images, and anew
        those of the model, because a loader that has just been opened draws one more than one that runs."""

        def before_train(self) -> None:
            self.trainer.model.register_forward_pre_hook(lambda *_: self.draw(1))

        def before_step(self) -> None:
            self.draw(0)

        def draw(self, use: int) -> None:
            trainer = self.trainer
            words = np.random.SeedSequence([trainer.job.seed, trainer.iter, comm.get_rank(), use])
            seed_all_rng(int(words.generate_state(1)[0]))

    class Stops(HookBase):
        """Saves and ends the run on all ranks after a step in which a signal came to one."""

        def after_step(self) -> None:
            trainer = self.trainer
            status = max(comm.all_gather(trainer.stop.exit_status or 0))
            if not status or trainer.iter + 1 == trainer.max_iter:
                return
            trainer.checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)
            if comm.is_main_process():
                say(
                    f"stopped on a signal after step {trainer.iter + 1} of {trainer.max_iter}; go on with "
                    "--resume"
                )
            sys.exit(status)

    class JournalWriter(EventWriter):
        """Detectron2's numbers as rows of metrics.jsonl."""

        def __init__(self, job: Job, start: int, scores: Any):
            self.scores = scores  # what the trainer's `test` has found, which writes that itself
            self.last = start - 1
            self.steps = job.cfg.SOLVER.MAX_ITER
            self.journal = Journal(job.folder, start=start)
            self.progress = StepProgress(self.steps, start, max(EVERY, self.steps // 50 // EVERY * EVERY))

        def write(self) -> None:
            storage = get_event_storage()
            latest = storage.latest_with_smoothing_hint(EVERY).items()
            row = {name: float(value) for name, (value, step) in latest if self.is_new(name, step)}
            self.last = storage.iter
            if not row:
                return
            done = min(storage.iter + 1, self.steps)
            self.journal.write(done, row)
            if "total_loss" in row:
                self.progress.update(done, f"loss {row['total_loss']:.4f} · lr {row['lr']:.4g}")

        def is_new(self, name: str, step: int) -> bool:
            return step > self.last and name not in self.scores()

        def close(self) -> None:
            self.progress.close()
            self.journal.close()

    class Trainer(DefaultTrainer):
        """Detectron2's trainer for one job."""

        def __init__(self, job: Job, stop: StopSignal):
            self.job, self.stop = job, stop
            self.start = self.position = 0 if job.evaluate_only else job.start
            self.proved = 0
            self.metrics: dict[str, float] = {}
            self.journal: Journal | None = None
            self.found: list[Prediction] = []
            cfg = job.cfg.clone()
            cfg.OUTPUT_DIR, cfg.SEED = str(job.folder), job.seed
            cfg.freeze()
            if comm.is_main_process():
                say(
                    f"{job.name}: {cfg.SOLVER.MAX_ITER} steps of {cfg.SOLVER.IMS_PER_BATCH} images, in "
                    f"{job.folder}"
                )
            seed_all_rng(job.seed)
            super().__init__(cfg)

        def fill(self) -> None:
            """The weights, proved; over them the newest checkpoint of this very job."""
            weights, cfg = self.job.weights, self.cfg
            if weights is not None:
                self.proved = load_proved(self.model, weights.path, weights.state, layout(cfg))
            elif cfg.MODEL.WEIGHTS:
                self.proved = load_published(self.model, cfg.MODEL.WEIGHTS, layout(cfg))
            if comm.is_main_process():
                say(
                    f"{self.proved} tensors of the trunk are those of the weights"
                    if self.proved
                    else "from scratch"
                )
            self.resume_or_load(resume=self.start > 0)

        def resume_or_load(self, resume: bool = True) -> None:
            if resume:
                super().resume_or_load(resume=True)

        def state_dict(self) -> dict[str, Any]:
            """With the optimizer's state, which release 0.6 forgets."""
            return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict(state_dict)
            self._trainer.load_state_dict(state_dict["_trainer"])

        def load_final(self) -> None:
            final = self.job.folder / FINAL
            if not final.is_file():
                raise UserError(
                    f"--eval-only needs the trained model {final}, which does not exist; train it first"
                )
            self.checkpointer.load(str(final), checkpointables=[])

        def build_train_loader(self, cfg: Any) -> Any:
            from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts

            records = get_detection_dataset_dicts(
                cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
            )
            sampler = _sampler()(len(records), self.job.seed, self.position * cfg.SOLVER.IMS_PER_BATCH)
            return build_detection_train_loader(cfg, dataset=records, sampler=sampler)

        def build_hooks(self) -> list[Any]:
            self.position = 0  # precise statistics always see the same images
            kept = super().build_hooks()
            self.position = self.start
            for runtime, hook in enumerate(kept):
                if isinstance(hook, hooks.PeriodicCheckpointer):
                    period = self.cfg.SOLVER.CHECKPOINT_PERIOD
                    kept[runtime] = hooks.PeriodicCheckpointer(self.checkpointer, period, max_to_keep=1)
            return [Seeds(), *kept, Stops()]

        def build_writers(self) -> list[Any]:
            if self.job.evaluate_only:
                return []
            writer = JournalWriter(self.job, self.start, lambda: self.metrics)
            self.journal = writer.journal
            return [writer]

        def test(self, cfg: Any, model: Any, evaluators: Any = None) -> dict[str, float]:
            """The numbers, on the main process; nothing on others."""
            loader = self.build_test_loader(cfg, cfg.DATASETS.TEST[0])
            saved = self.job.evaluate_only or self.iter + 1 >= self.max_iter
            collector = _collector()(self.job, self.stop if saved else None)  # a score between ends first
            self.metrics = inference_on_dataset(model, loader, collector) or {}
            self.found = collector.found
            if self.journal is not None:
                self.journal.write(min(self.iter + 1, self.max_iter), self.metrics)
            if self.metrics:
                say(f"{self.job.name}: AP {self.metrics['detection/AP']:.2f}")
            return self.metrics

    return Trainer


@functools.cache
def _sampler() -> type:
    from detectron2.data.samplers import TrainingSampler

    class FromPosition(TrainingSampler):
        """Detectron2's endless shuffled stream, from the image at which a run goes on."""

        def __init__(self, size: int, seed: int, position: int):
            super().__init__(size, seed=seed)
            self.position = position

        def __iter__(self) -> Iterator[int]:
            stream = self._infinite_indices()
            for runtime, index in enumerate(stream):
                if runtime >= self.position and runtime % self._world_size == self._rank:
                    yield index

    return FromPosition


@functools.cache
def _collector() -> type:
    from detectron2.evaluation import DatasetEvaluator
    from detectron2.utils import comm

    class Collector(DatasetEvaluator):
        """Gathers what the model found and hands it to the evaluation that all engines share; `stop` may cut
        it off where all is saved."""

        def __init__(self, job: Job, stop: StopSignal | None):
            self.job, self.stop = job, stop
            self.found: list[Prediction] = []

        def reset(self) -> None:
            self.found = []

        def process(self, inputs: Any, outputs: Any) -> None:
            if self.stop is not None and self.stop.exit_status is not None:
                if comm.is_main_process():
                    say("stopped on a signal while scoring; --resume scores again")
                sys.exit(self.stop.exit_status)
            for image, output in zip(inputs, outputs, strict=True):
                self.found.append(prediction_of(image["image_id"], output["instances"]))

        def evaluate(self) -> dict[str, float]:
            comm.synchronize()
            parts = comm.gather(self.found)
            if not comm.is_main_process():
                return {}
            of_image = {item["image_id"]: item for part in parts for item in part}
            self.found = list(of_image.values())
            return evaluate(self.found, self.job.data.test, self.job.metric, self.job.data.classes)

    return Collector


def prediction_of(image_id: Any, instances: Any) -> Prediction:
    """Detectron2's Instances of an image, on the CPU; masks as COCO's run lengths."""
    instances = instances.to("cpu")
    masks = None
    if instances.has("pred_masks"):
        from pycocotools import mask as run_lengths

        masks = [
            run_lengths.encode(np.asfortranarray(mask, dtype=np.uint8))
            for mask in instances.pred_masks.numpy()
        ]
    return {
        "image_id": image_id,
        "boxes": instances.pred_boxes.tensor.numpy(),
        "scores": instances.scores.numpy(),
        "classes": instances.pred_classes.numpy(),
        "masks": masks,
    }
