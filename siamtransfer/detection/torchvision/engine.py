"""Transfer to detection without Detectron2: the same weights, data and evaluation in torchvision's R-CNNs.

The published protocols are Detectron2's. This engine keeps their schedule, batch, sizes and norms, but its
heads, samplers and losses are torchvision's: its numbers compare with each other, not with published ones.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.detection.data.coco_annotations import encoded
from siamtransfer.detection.data.dataset_split import ImageRecord, corners, read_image
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.metrics.coco_ap import Backend
from siamtransfer.detection.metrics.evaluate import ApKind, evaluate
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.detection.torchvision.model import as_input, build_detector, predict
from siamtransfer.detection.torchvision.recipe import Recipe
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, StopSignal, cpu_count, seed_step, unwrap
from siamtransfer.training.epoch_checkpoint import EpochFile
from siamtransfer.training.guard import step_report
from siamtransfer.training.journal import Journal
from siamtransfer.training.progress import StepProgress
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.views.sampler import SampleKey, StepSampler

SCORED = "detection/AP"  # the number by which a row of scores is known
Batch = list[tuple[Tensor, dict[str, Tensor]]]
Scores = tuple[dict[str, float], list[Prediction]]  # metrics, and what they are of
NOT_COMPARABLE = (
    "torchvision's heads, samplers and losses are not Detectron2's, which published numbers are of"
)


@dataclass(frozen=True)
class Outcome:
    """What one training came to: metrics in per cent, the protocol for the record, and the detections."""

    metrics: dict[str, float]
    protocol: dict[str, Any]
    predictions: list[Prediction]


def train_and_evaluate(
    read: ReadBackbone,
    data: DetectionData,
    recipe: Recipe,
    metric: ApKind,
    runtime: Runtime,
    *,
    run: Path | None = None,
    resume: bool = False,
    evaluate_only: bool = False,
    backend: Backend = "hotcoco",
    workers: int | None = None,
) -> Outcome:
    """Trains a detector from the backbone `read` and scores it on the test part.

    With a `run` folder it keeps detector.pth (the last state, whole or absent) and metrics.jsonl there, and
    `resume` goes on from them, step by step as an undisturbed run; `evaluate_only` scores what is there.

    `workers` are the processes that read images (None: none on the CPU, up to 8 beside a GPU).

    It computes in float32 whatever `place` prefers: torchvision decodes boxes in the precision of its layers,
    and bfloat16 would round their corners to several pixels.

    Raises:
        UserError: weights, data and recipe do not go together, the folder holds another training, or the
            loss is not finite.
        SystemExit: a signal came; the state is saved.
    """
    records = [record for record in data.train if usable(record)]
    recipe.check(len(records), runtime.world_size)
    if recipe.design.masks and not data.has_masks:
        raise UserError(
            "a Mask R-CNN needs a mask of every object, and these data have none for some; train boxes"
        )
    if (resume or evaluate_only) and run is None:
        raise UserError("to go on or to evaluate only, name the run folder that holds the training")
    torch.manual_seed(recipe.seed)
    detector = build_detector(read, len(data.classes), recipe.design)
    file = EpochFile(run / "detector.pth", _identity(read, data, recipe)) if run else None
    state = file.read(wanted=resume or evaluate_only) if file else None
    if evaluate_only and state is None:
        raise UserError(f"{run} holds no detector.pth to evaluate: train first")
    images = TrainingImages(records, recipe)
    if workers is None:
        share = cpu_count() // runtime.local_world_size
        workers = 0 if runtime.device.type == "cpu" else min(8, max(1, share))

    def score(step: int) -> Scores:
        measure_norms(detector, images, recipe, step, runtime, workers or 0)
        found = predict(detector, data.test, runtime, recipe.design.short_side)
        metrics = evaluate(found, data.test, metric, data.classes, backend) if runtime.is_main else {}
        return collectives.broadcast_object(metrics), found

    if evaluate_only:
        detector.load_state_dict(state["model"])  # type: ignore[index]
        detector.to(runtime.device)
        metrics, found = score(state["step"])  # type: ignore[index]
    else:
        metrics, found = _train(detector, images, recipe, runtime, score, file, state, run, workers)
    protocol = {
        "engine": "torchvision",
        "comparable": False,
        "not_comparable": NOT_COMPARABLE,
        "recipe": asdict(recipe),
        "metric": metric,
        "precision": "float32",
        "world": runtime.world_size,
        "train_images_with_objects": len(records),
    }
    return Outcome(metrics, protocol, found)


def usable(record: ImageRecord) -> bool:
    """Whether training has something to learn from an image: an object that is no crowd and has an area."""
    return any(_trains(item, record) for item in record["annotations"])


def _trains(item: dict[str, Any], record: ImageRecord) -> bool:
    x0, y0, x1, y1 = _inside(item, record)
    return not item.get("iscrowd", 0) and x1 > x0 and y1 > y0


def _inside(item: dict[str, Any], record: ImageRecord) -> list[float]:
    x0, y0, x1, y1 = corners(item)
    width, height = record["width"], record["height"]
    return [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]


class TrainingImages(Dataset):
    """Images float32[3,H,W] and targets as torchvision's detectors take them, half of them mirrored."""

    def __init__(self, records: Sequence[ImageRecord], recipe: Recipe):
        self.records, self.masks, self.seed = records, recipe.design.masks, recipe.seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, ticket: SampleKey) -> tuple[Tensor, dict[str, Tensor]]:
        epoch, index = ticket
        record = self.records[index]
        items = [item for item in record["annotations"] if _trains(item, record)]
        image = as_input(read_image(record))
        boxes = torch.tensor([_inside(item, record) for item in items], dtype=torch.float32)
        target = {"labels": torch.tensor([item["category_id"] + 1 for item in items])}
        if self.masks:
            target["masks"] = torch.from_numpy(_pixels(items, record))
        if np.random.Generator(np.random.Philox([self.seed, epoch, index])).random() < 0.5:
            image = image.flip(2)
            boxes[:, [0, 2]] = record["width"] - boxes[:, [2, 0]]
            target = {key: value.flip(2) if key == "masks" else value for key, value in target.items()}
        return image, {"boxes": boxes, **target}

    def batches(
        self, recipe: Recipe, start: int, steps: int, runtime: Runtime, workers: int
    ) -> Iterator[Batch]:
        """This rank's part of the batches of the steps from `start` to `steps`."""
        sampler = StepSampler(
            len(self),
            recipe.batch,
            steps,
            seed=recipe.seed,
            start=start,
            rank=runtime.rank,
            world_size=runtime.world_size,
        )
        return iter(DataLoader(self, batch_sampler=sampler, collate_fn=list, num_workers=workers))


def _pixels(items: Sequence[dict[str, Any]], record: ImageRecord) -> np.ndarray:
    """The masks uint8[n,H,W] of objects."""
    from pycocotools import mask as run_lengths

    size = record["height"], record["width"]
    masks = run_lengths.decode([encoded(item["segmentation"], *size) for item in items])
    return np.ascontiguousarray(masks.transpose(2, 0, 1))


def measure_norms(
    detector: nn.Module, images: TrainingImages, recipe: Recipe, step: int, runtime: Runtime, workers: int
) -> None:
    """Replaces the running statistics of the batch norms by the mean over `precise_batches` training batches
    with the present weights (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3)."""
    norms = [module for module in detector.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not recipe.precise_batches or not norms:
        return
    model: Any = detector
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    model.train()
    seed_step(recipe.seed, step, runtime.rank)
    ahead = images.batches(recipe, step, step + recipe.precise_batches, runtime, workers)
    with torch.no_grad():
        for batch in ahead:
            inputs, _ = model.transform([image.to(runtime.device) for image, _ in batch])
            model.backbone(inputs.tensors)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def _train(
    detector: Any, images: TrainingImages, recipe: Recipe, runtime: Runtime, score: Callable[[int], Scores],
    file: EpochFile | None, state: dict[str, Any] | None, run: Path | None, workers: int,
) -> Scores:  # fmt: skip
    """All steps that are left; returns the last scores and detections."""
    start = state["step"] if state else 0
    if state:
        detector.load_state_dict(state["model"])
    distributed = runtime.distribute(detector)
    detector = unwrap(distributed)
    optimizer = torch.optim.SGD(_groups(detector, recipe), lr=recipe.rate, momentum=recipe.momentum)
    if state:
        optimizer.load_state_dict(state["optimizer"])
    journal = Journal(run if runtime.is_main else None, start=start)
    progress = StepProgress(recipe.steps, start, max(1, recipe.steps // 20), shown=runtime.is_main)

    def save(done: int) -> None:
        if file and runtime.is_main:
            file.write({"step": done, "model": detector.state_dict(), "optimizer": optimizer.state_dict()})

    def score_if_due(done: int) -> None:
        """Also after a resume, for the run may have been stopped between a step's save and its scores."""
        due = recipe.score_every and done % recipe.score_every == 0 and 0 < done < recipe.steps
        if due and not collectives.broadcast_object(journal.has(done, SCORED)):
            metrics, _ = score(done)
            journal.write(done, _finite(metrics))
            progress.say(f"after {done} steps: {SCORED} {metrics[SCORED]:.2f}")

    score_if_due(start)
    with StopSignal() as stop:
        for step, batch in enumerate(images.batches(recipe, start, recipe.steps, runtime, workers), start):
            seed_step(recipe.seed, step, runtime.rank)
            rate = recipe.rate_at(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            distributed.train()
            inputs = [image.to(runtime.device) for image, _ in batch]
            targets = [
                {key: value.to(runtime.device) for key, value in target.items()} for _, target in batch
            ]
            losses = distributed(inputs, targets)
            loss = sum(losses.values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            verdict = step_report(loss, detector.parameters(), stop.exit_status, runtime)
            if not (verdict.loss_finite and verdict.gradients_finite):
                raise UserError(
                    f"the loss or a gradient is not finite at step {step}: lower the rate {recipe.rate:g} or "
                    "lengthen the warm-up"
                )
            optimizer.step()
            done = step + 1
            if done % recipe.log_every == 0 or done == recipe.steps:
                parts = {
                    name.replace("loss_", "loss/"): float(part.detach()) for name, part in losses.items()
                }
                journal.write(done, {"loss": verdict.loss, "lr": rate, **parts})
            progress.update(done, f"loss {verdict.loss:.4f} · lr {rate:.4g}")
            if verdict.exit_status is not None or done == recipe.steps or done % recipe.save_every == 0:
                save(done)
            if verdict.exit_status is not None:
                progress.close()
                if runtime.is_main:
                    say(f"stopped on a signal after step {done} of {recipe.steps}; go on with --resume")
                sys.exit(verdict.exit_status)
            score_if_due(done)
    progress.close()
    metrics, found = score(recipe.steps)
    if not journal.has(recipe.steps, SCORED):  # a finished run that is resumed has its row
        journal.write(recipe.steps, _finite(metrics))
    journal.close()
    return metrics, found


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _groups(detector: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The norms' parameters and all others, each with its weight decay."""
    norms = [
        parameter
        for module in detector.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False)
    ]
    of_norms = set(map(id, norms))
    others = [parameter for parameter in detector.parameters() if id(parameter) not in of_norms]
    return [
        {"params": others, "weight_decay": recipe.weight_decay},
        {"params": norms, "weight_decay": recipe.norm_weight_decay},
    ]


def _identity(read: ReadBackbone, data: DetectionData, recipe: Recipe) -> dict[str, str]:
    """What must be equal for a training to go on; how often it saves and scores may change."""
    free = ("score_every", "save_every", "log_every")
    settings = {item.name: getattr(recipe, item.name) for item in fields(recipe) if item.name not in free}
    return {
        "weights": read.digest,
        "train": data.train_fingerprint,
        "classes": ", ".join(data.classes),
        **{key: str(value) for key, value in settings.items()},
    }
