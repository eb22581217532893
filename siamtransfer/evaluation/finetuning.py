"""Fine-tuning a backbone with a linear classifier on few labels (or all), by recipes as published.

Legend: N images, K classes. Learning rates are those of a batch of 256 images and grow with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages
from siamtransfer.metering.meter import ImageClock
from siamtransfer.training.epochs import Notes, train_epochs
from siamtransfer.training.guard import StepContext, StepReport
from siamtransfer.training.loss_scale import load_loss_scale
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.training.step import Updater

ADVICE = "lower the learning rates"


@dataclass(frozen=True)
class Finetuning:
    """One recipe: SGD with momentum 0.9 on everything, batch norm in train mode.

    Attributes:
        rates: published learning rates (backbone's, classifier's) by the percentage of labels.
        epochs: passes over the labelled images, by percentage.
        milestones: epochs from which the learning rates are multiplied by `gamma`; without any they follow a
            cosine, constant within an epoch.
        source: where the recipe comes from.
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
        """The fraction of the initial learning rates in `epoch` (from 0) of `epochs`."""
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


@dataclass(frozen=True)
class FinetuningPlan:
    """A recipe with the values that depend on the labels.

    Attributes:
        lrs: (backbone's, classifier's), for a batch of 256 images.
    """

    recipe: Finetuning
    lrs: tuple[float, float]
    epochs: int


class _ClassifierTraining:
    """Fine-tuning as training.epochs drives it."""

    loss_name = "loss"

    def __init__(self, model: Classifier, images: AugmentedImages, plan: FinetuningPlan, runtime: Runtime):
        self.model, self.images, self.plan, self.runtime = model, images, plan, runtime
        self._clock = ImageClock()
        groups = [
            {"params": list(module.parameters()), "initial": lr * images.batch / 256}
            for module, lr in zip((model.backbone, model.linear), plan.lrs, strict=True)
        ]
        recipe = plan.recipe
        self._updater = Updater(
            runtime.distribute(model),
            torch.optim.SGD(
                groups, lr=0.0, momentum=0.9, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
            ),
            runtime.scaler(),
            runtime,
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.images.steps_per_epoch

    @property
    def progress_every(self) -> int:
        return self.steps_per_epoch

    def samples(self, step: int) -> int:
        return self.images.batch

    def batches(self, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self._clock.watch(self.images.batches(start, steps))

    def step(self, step: int, batch: tuple[Tensor, Tensor], exit_status: int | None) -> StepReport:
        x, y = batch
        decay = self.plan.recipe.decay(step // self.steps_per_epoch, self.plan.epochs)
        for group in self._updater.optimizer.param_groups:
            group["lr"] = group["initial"] * decay
        self._updater.model.train()
        with self.runtime.autocast():
            scores = self._updater.model(x)
        loss = F.cross_entropy(scores.float(), y)
        lr = self._updater.optimizer.param_groups[0]["lr"]
        report = self._updater.step(loss, StepContext(step, lr, None, ADVICE), exit_status)
        self._clock.count(len(y))
        return report

    def state_dict(self) -> dict[str, Any]:
        return {
            "scaler": self._updater.scaler.state_dict(),
            "precision": self.runtime.precision,
            "model": self.model.state_dict(),
            "optimizer": self._updater.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self._updater.optimizer.load_state_dict(state["optimizer"])
        load_loss_scale(self._updater.scaler, state["scaler"], self.runtime, state.get("precision"))


def finetune(
    model: Classifier,
    images: AugmentedImages,
    plan: FinetuningPlan,
    runtime: Runtime,
    *,
    after_epoch: Callable[[int], Notes],
    saved: SavedTraining | None = None,
) -> list[Notes]:
    """Trains `model` in place and returns what `after_epoch(epoch)` noted after each epoch.

    Raises:
        UserError: the loss or a gradient is not finite; the update was not made.
        SystemExit: a signal arrived; the state is saved where `saved` is given.
    """
    training = _ClassifierTraining(model, images, plan, runtime)
    return train_epochs(training, plan.epochs, runtime, after_epoch=after_epoch, saved=saved)
