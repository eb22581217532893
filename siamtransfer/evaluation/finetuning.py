"""Fine-tuning a backbone with a linear classifier on few labels (or all), by recipes as published.

Legend: N images, K classes; a rate is that of a batch of 256 images and grows with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.backbones.architecture import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages
from siamtransfer.training.epoch_checkpoint import EpochFile
from siamtransfer.training.progress import StepProgress, Stopwatch
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True)
class Finetuning:
    """One recipe: SGD with momentum 0.9 on everything, batch norm in train mode.

    Attributes:
        rates: (backbone's, classifier's) by the percentage of labels that they were published for.
        epochs: passes over the labelled images, by percentage.
        milestones: epochs after which the rates shrink by `gamma`; none is one stair of a cosine an epoch.
        source: where the recipe is read from.
    """

    rates: dict[int, tuple[float, float]]
    epochs: dict[int, int]
    batch: int
    source: str
    nesterov: bool = False
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    weight_decay: float = 0.0

    def decay(self, epoch: int, epochs: int) -> float:
        """The share of the initial rates in `epoch` (from 0) of `epochs`."""
        if self.milestones:
            return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


FINETUNING: dict[str, Finetuning] = {
    "swav": Finetuning(
        {1: (0.02, 5.0), 10: (0.01, 0.2)}, {1: 20, 10: 20}, 256,
        "facebookresearch/swav, eval_semisup.py", milestones=(12, 16), gamma=0.2,
    ),
    "simclr": Finetuning(
        {1: (0.05, 0.05), 10: (0.05, 0.05)}, {1: 60, 10: 30}, 4096,
        "SimCLR, arXiv 2002.05709, appendix B.5", nesterov=True,
    ),
    "barlow-twins": Finetuning(
        {1: (0.005, 0.5)}, {1: 20}, 256, "facebookresearch/barlowtwins, README"
    ),
    "vicreg": Finetuning(
        {1: (0.03, 0.08), 10: (0.01, 0.1)}, {1: 20, 10: 20}, 256, "facebookresearch/vicreg, README"
    ),
    "vissl": Finetuning(
        {1: (0.05, 0.05), 10: (0.05, 0.05)}, {1: 70, 10: 70}, 256,
        "facebookresearch/vissl, semi-supervised benchmark", nesterov=True, milestones=(30,),
    ),
    "ours": Finetuning(
        {100: (0.01, 0.1)}, {100: 30}, 256, "ours, from no paper, for all labels", weight_decay=1e-4
    ),
}  # fmt: skip


class Classifier(nn.Module):
    """x[N, 3, H, W] -> scores[N, K] through a backbone; the linear layer starts from N(0, 0.01²) and 0."""

    def __init__(self, backbone: Backbone, classes: int):
        super().__init__()
        self.backbone, self.linear = backbone, nn.Linear(backbone.dim, classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.linear(self.backbone(x))
        return scores


def finetune(
    model: Classifier,
    images: AugmentedImages,
    recipe: Finetuning,
    rates: tuple[float, float],
    epochs: int,
    runtime: Runtime,
    *,
    after_epoch: Callable[[int], dict[str, Any]],
    file: EpochFile | None = None,
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Trains `model` in place and returns what `after_epoch(epoch)` noted after each.

    Raises:
        UserError: the loss is not finite.
    """
    state = file.read(wanted=resume) if file else None
    notes: list[dict[str, Any]] = state["notes"] if state else []
    if state:
        model.load_state_dict(state["model"])
    groups = [
        {"params": list(part.parameters()), "initial": rate * images.batch / 256}
        for part, rate in zip((model.backbone, model.linear), rates, strict=True)
    ]
    distributed = runtime.distribute(model)
    optimizer = torch.optim.SGD(
        groups, lr=0.0, momentum=0.9, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
    )
    scaler = runtime.scaler()
    if state:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
    per_epoch, start = images.steps_per_epoch, len(notes)
    clock = Stopwatch()
    progress = StepProgress(epochs * per_epoch, start * per_epoch, per_epoch, shown=runtime.is_main)
    for number, (x, y) in enumerate(clock.watch(images.batches(start, epochs)), start * per_epoch):
        epoch = number // per_epoch
        for group in optimizer.param_groups:
            group["lr"] = group["initial"] * recipe.decay(epoch, epochs)
        distributed.train()
        with runtime.autocast():
            scores = distributed(x)
        loss = F.cross_entropy(scores.float(), y)
        if not np.isfinite(float(collectives.all_reduce_mean(loss.detach()))):
            raise UserError(f"the loss is not finite in epoch {epoch + 1}: lower the learning rates")
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        clock.images += images.batch
        if (number + 1) % per_epoch:
            continue
        notes.append(after_epoch(epoch))
        speed, waiting = clock.lap()
        text = f"epoch {epoch + 1}/{epochs} · loss {float(loss.detach()):.4f} · {speed:.0f} images/s"
        progress.update(number + 1, f"{text} · data wait {waiting:.0%}")
        if file and runtime.is_main:
            whole = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            file.write({"notes": notes, "scaler": scaler.state_dict(), **whole})
    progress.close()
    return notes
