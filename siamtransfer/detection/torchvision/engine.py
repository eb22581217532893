"""Transfer to detection without Detectron2: the same weights, data and evaluation in torchvision's R-CNNs.

The published protocols are Detectron2's. This engine keeps their schedule, batch, sizes and norms, but its
heads, samplers and losses are torchvision's: its numbers compare with each other, not with published ones.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.metrics.coco_ap import Backend
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.detection.metrics.score_predictions import ApKind, score_predictions
from siamtransfer.detection.torchvision.model import build_detector, predict
from siamtransfer.detection.torchvision.recipe import DetectorRecipe
from siamtransfer.detection.torchvision.training_images import Sample, TrainingImages, usable
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, cpu_count, seed_step
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.training.guard import StepContext, StepReport
from siamtransfer.training.journal import Journal
from siamtransfer.training.progress import StepProgress
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.training.step import Updater
from siamtransfer.training.stopping import exit_stopped
from siamtransfer.utils.errors import UserError

HEADLINE = "detection/AP"
"""The number that every row of scores in metrics.jsonl has."""
NOT_COMPARABLE = (
    "torchvision's heads, samplers and losses are not Detectron2's, which published numbers are of"
)

Evaluation = tuple[dict[str, float], list[Prediction]]
"""Metrics in per cent (the same on every rank), and the detections that they score."""


@dataclass(frozen=True)
class DetectorResult:
    """Metrics in per cent, the protocol for the record, and the detections."""

    metrics: dict[str, float]
    protocol: dict[str, Any]
    predictions: list[Prediction]


@dataclass(frozen=True)
class RunOptions:
    """Where and how a detector is trained and scored; no option changes a number.

    Attributes:
        run: a folder for the states (detector.pth) and metrics.jsonl; None keeps nothing.
        resume: go on from the state in `run`.
        evaluate_only: score the state in `run`, without training.
        backend: which implementation computes COCO's AP.
        workers: processes that read images; None: none on the CPU, up to 8 beside a GPU.
    """

    run: Path | None = None
    resume: bool = False
    evaluate_only: bool = False
    backend: Backend = "hotcoco"
    workers: int | None = None


def train_and_evaluate(
    read: ReadBackbone,
    data: DetectionData,
    recipe: DetectorRecipe,
    metric: ApKind,
    runtime: Runtime,
    options: RunOptions | None = None,
) -> DetectorResult:
    """Trains a detector from the backbone `read` and scores it on the test split.

    It computes in float32 whatever `runtime` prefers: torchvision decodes boxes in the precision of its
    layers, and bfloat16 would round their corners to several pixels.

    Raises:
        UserError: weights, data and recipe do not go together, the folder holds another training, or the
            loss is not finite.
        SystemExit: a signal arrived; the state is saved where `options.run` is given.
    """
    options = options or RunOptions()
    records = [record for record in data.train if usable(record)]
    recipe.check(len(records), runtime.world_size)
    if recipe.design.masks and not data.has_masks:
        raise UserError(
            "a Mask R-CNN needs a mask of every object, and these data have none for some; train boxes"
        )
    saved, state = _open_saved(read, data, recipe, options)
    torch.manual_seed(recipe.seed)
    detector = build_detector(read, len(data.classes), recipe.design)
    images, workers = TrainingImages(records, recipe), _count_workers(options, runtime)

    def score(step: int) -> Evaluation:
        measure_norms(detector, images, recipe, step, runtime, workers)
        predictions = predict(detector, data.test, runtime, recipe.design.short_side)
        metrics = {}
        with collectives.own_pace("scoring the detections"):
            if runtime.is_main:
                metrics = score_predictions(predictions, data.test, metric, data.classes, options.backend)
        return collectives.broadcast_object(metrics), predictions

    if options.evaluate_only:
        assert state is not None
        detector.load_state_dict(state["model"])
        detector.to(runtime.device)
        metrics, predictions = score(state["step"])
    else:
        training = DetectorTraining(detector, images, recipe, runtime, workers)
        metrics, predictions = training.run(score, options.run, saved, state)
    protocol = {
        "engine": "torchvision",
        "comparable": False,
        "not_comparable": NOT_COMPARABLE,
        "recipe": recipe.as_record(),
        "metric": metric,
        "precision": "float32",
        "world": runtime.world_size,
        "train_images_with_objects": len(records),
    }
    return DetectorResult(metrics, protocol, predictions)


class DetectorTraining:
    """The training of a torchvision detector, which can be stopped at any step.

    Two processes with the same seed and the same state make the same steps.
    """

    def __init__(
        self,
        detector: nn.Module,
        images: TrainingImages,
        recipe: DetectorRecipe,
        runtime: Runtime,
        workers: int,
    ):
        self.detector, self.images, self.recipe = detector, images, recipe
        self.runtime, self.workers = runtime, workers
        model = runtime.distribute(detector)
        optimizer = torch.optim.SGD(
            _parameter_groups(detector, recipe), lr=recipe.lr, momentum=recipe.momentum
        )
        scaler = torch.amp.GradScaler(runtime.device.type, enabled=False)
        self._updater = Updater(model, optimizer, scaler, runtime)

    def run(
        self,
        score: Callable[[int], Evaluation],
        folder: Path | None,
        saved: SavedTraining | None,
        state: dict[str, Any] | None,
    ) -> Evaluation:
        """Makes all steps that are left after `state`; returns the last scores and detections.

        `score(step)` is called every `recipe.score_every` steps and at the end.
        """
        recipe, runtime = self.recipe, self.runtime
        start = state["step"] if state else 0
        if state:
            self.load_state_dict(state)
        journal = Journal(folder if runtime.is_main else None, start=start)
        progress = StepProgress(recipe.steps, start, max(1, recipe.steps // 20), shown=runtime.is_main)

        def score_if_due(done: int) -> None:
            due = recipe.score_every and done % recipe.score_every == 0 and 0 < done < recipe.steps
            if due and not collectives.broadcast_object(journal.has(done, HEADLINE)):
                metrics, _ = score(done)
                journal.write(done, _finite(metrics))
                progress.say(f"after {done} steps: {HEADLINE} {metrics[HEADLINE]:.2f}")

        with contextlib.closing(journal), contextlib.closing(progress), StopSignal() as stop:
            score_if_due(start)  # the signal came between a step and its scores
            batches = self.images.batches(recipe, start, recipe.steps, runtime, self.workers)
            for step, batch in enumerate(batches, start):
                stop.doing = f"finishing step {step + 1}" + (", then saving" if saved else "")
                collectives.set_doing(f"at step {step + 1}")
                report, losses = self.step(step, batch, stop.exit_status)
                done, last = step + 1, step + 1 == recipe.steps
                lr = recipe.lr_at(step)
                if done % recipe.log_every == 0 or last:
                    journal.write(done, {"loss": report.loss, "lr": lr, **losses})
                progress.update(done, f"loss {report.loss:.4f} · lr {lr:.4g}")
                stopping = report.exit_status is not None
                if saved and (stopping or last or done % recipe.save_every == 0):
                    saved.save(self.state_dict(), done)
                if report.exit_status is not None:
                    progress.close()
                    exit_stopped(
                        report.exit_status,
                        done,
                        recipe.steps,
                        runtime,
                        saved=saved is not None,
                        seconds=stop.seconds,
                    )
                score_if_due(done)
            progress.close()
            metrics, predictions = score(recipe.steps)
            if not journal.has(recipe.steps, HEADLINE):  # a finished run that is resumed has its row
                journal.write(recipe.steps, _finite(metrics))
        return metrics, predictions

    def step(
        self, step: int, batch: list[Sample], exit_status: int | None
    ) -> tuple[StepReport, dict[str, float]]:
        """One update on this rank's part of a batch; returns the report and the parts of the loss, `loss/…`.

        Raises:
            UserError: the loss or a gradient is not finite; the update was not made.
        """
        runtime, recipe, lr = self.runtime, self.recipe, self.recipe.lr_at(step)
        seed_step(recipe.seed, step, runtime.rank)
        for group in self._updater.optimizer.param_groups:
            group["lr"] = lr
        self._updater.model.train()
        images = [image.to(runtime.device) for image, _ in batch]
        targets = [{name: value.to(runtime.device) for name, value in target.items()} for _, target in batch]
        losses: dict[str, Tensor] = self._updater.model(images, targets)
        loss = sum(losses.values(), start=torch.zeros((), device=runtime.device))
        advice = f"lower the learning rate {recipe.lr:g} or lengthen the warm-up"
        report = self._updater.step(loss, StepContext(step, lr, None, advice), exit_status)
        return report, {name.replace("loss_", "loss/"): float(part.detach()) for name, part in losses.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.detector.state_dict(),
            "optimizer": self._updater.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.detector.load_state_dict(state["model"])
        self._updater.optimizer.load_state_dict(state["optimizer"])


def measure_norms(
    detector: nn.Module,
    images: TrainingImages,
    recipe: DetectorRecipe,
    step: int,
    runtime: Runtime,
    workers: int,
) -> None:
    """Replaces the running statistics of the batch norms by the mean over `precise_batches` training batches
    with the present weights (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3)."""
    if not recipe.precise_batches:
        return
    detector.train()
    seed_step(recipe.seed, step, runtime.rank)
    batches = images.batches(recipe, step, step + recipe.precise_batches, runtime, workers)
    transform, backbone = detector.get_submodule("transform"), detector.get_submodule("backbone")
    inputs = (transform([image.to(runtime.device) for image, _ in batch])[0].tensors for batch in batches)
    update_bn(inputs, backbone)


def _open_saved(
    read: ReadBackbone, data: DetectionData, recipe: DetectorRecipe, options: RunOptions
) -> tuple[SavedTraining | None, dict[str, Any] | None]:
    """The states of the run folder, and the newest one."""
    if options.run is None:
        if options.resume or options.evaluate_only:
            raise UserError("to go on or to evaluate only, name the run folder that holds the training")
        return None, None
    saved = SavedTraining(
        options.run / "detector.pth",
        _identity(read, data, recipe),
        resume=options.resume or options.evaluate_only,
    )
    state = saved.load()
    if options.evaluate_only and state is None:
        raise UserError(f"{options.run} holds no detector.pth to evaluate: train first")
    return saved, state


def _count_workers(options: RunOptions, runtime: Runtime) -> int:
    if options.workers is not None:
        return options.workers
    if runtime.device.type == "cpu":
        return 0
    return min(8, max(1, cpu_count() // runtime.local_world_size))


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _parameter_groups(detector: nn.Module, recipe: DetectorRecipe) -> list[dict[str, Any]]:
    """The norms' parameters and all others, each with its weight decay."""
    norms = [
        parameter
        for module in detector.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False)
    ]
    ids_of_norms = set(map(id, norms))
    others = [parameter for parameter in detector.parameters() if id(parameter) not in ids_of_norms]
    return [
        {"params": others, "weight_decay": recipe.weight_decay},
        {"params": norms, "weight_decay": recipe.norm_weight_decay},
    ]


def _identity(read: ReadBackbone, data: DetectionData, recipe: DetectorRecipe) -> dict[str, str]:
    """What must be equal for a training to go on; how often it saves and scores may change."""
    free = ("score_every", "save_every", "log_every")
    settings = {
        recipe.record_name(field.name): str(getattr(recipe, field.name))
        for field in fields(recipe)
        if field.name not in free
    }
    return {
        "weights": read.digest,
        "network": repr(read.architecture),
        "transform": repr(read.normalisation),
        "train": data.train_fingerprint,
        "classes": ", ".join(data.classes),
        **settings,
    }
