"""Training linear classifiers on a frozen backbone, epoch by epoch, from images or from kept features.

Legend: N samples of a batch, D features, K classes, H classifiers of a bank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages, local_part
from siamtransfer.evaluation.linear.classifier_bank import ClassifierBank
from siamtransfer.metering.meter import ImageClock
from siamtransfer.training.epochs import UPDATE_PROGRESS, Notes, train_epochs
from siamtransfer.training.guard import StepContext, StepReport, check_finite, step_report
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.views.sampler import epoch_order

Select = Callable[[Tensor, str], Tensor]
"""(h[N, D] of all layers, the name of a selection) -> its features."""

ADVICE = "no classifier has a finite loss: lower the learning rate, or look at the features"


class FeatureBatches(Protocol):
    """Batches of features with labels. The last batch of an epoch may be smaller."""

    @property
    def batch(self) -> int:
        """How many samples an update sees, over all ranks."""

    @property
    def samples(self) -> int:
        """How many an epoch has."""

    def batches(self, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """h[n, D] and labels int64[n] of this rank's share of every batch from step `start` up to `steps`."""


@dataclass
class KeptFeatures:
    """Features[N, D] that were extracted before, of which the rows `chosen` int64[n] (None: all) take part,
    without a copy of them. Each rank takes its share of a batch, in the epoch's order."""

    features: Tensor
    labels: Tensor
    batch: int
    runtime: Runtime
    seed: int = 0
    chosen: Tensor | None = None

    @property
    def samples(self) -> int:
        return len(self.features if self.chosen is None else self.chosen)

    def batches(self, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        device, per_epoch = self.runtime.device, -(-self.samples // self.batch)
        for step in range(start, steps):
            epoch, number = divmod(step, per_epoch)
            if step == start or number == 0:
                order = torch.from_numpy(epoch_order(self.samples, self.seed, epoch))
                order = order if self.chosen is None else self.chosen[order]
            block = order[number * self.batch : (number + 1) * self.batch]
            local = block[local_part(len(block), self.runtime)]
            yield self.features[local].to(device), self.labels[local].to(device)


@dataclass
class AugmentedFeatures:
    """Features of crops and flips, made by a frozen backbone in eval mode, `together` images at once."""

    backbone: nn.Module
    images: AugmentedImages
    together: int

    @property
    def batch(self) -> int:
        return self.images.batch

    @property
    def samples(self) -> int:
        return len(self.images.indices)

    def batches(self, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.backbone.eval()
        clock = ImageClock()
        for x, y in self.images.batches(start, steps):
            with torch.no_grad(), self.images.runtime.autocast():
                features = [self.backbone(chunk).float() for chunk in x.split(self.together)]
            clock.count(len(y))
            yield torch.cat(features), y
            clock.restart()


@dataclass(frozen=True)
class ClassifierSchedule:
    """How long and at which learning rates the classifiers train.

    Attributes:
        decay: (epoch from 0, fraction of all steps done) -> fraction of the initial learning rates.
    """

    epochs: int
    decay: Callable[[int, float], float]


@dataclass
class _BankTraining:
    """The banks by the name of the selection of layers that each reads; see training.epochs."""

    banks: dict[str, ClassifierBank]
    source: FeatureBatches
    select: Select
    schedule: ClassifierSchedule
    runtime: Runtime
    loss_name: str = "best loss"

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.source.samples // self.source.batch)

    @property
    def progress_every(self) -> int:
        return max(self.steps_per_epoch, UPDATE_PROGRESS)

    def samples(self, step: int) -> int:
        within = step % self.steps_per_epoch
        return min(self.source.batch, self.source.samples - within * self.source.batch)

    def batches(self, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self.source.batches(start, steps)

    def step(self, step: int, batch: tuple[Tensor, Tensor], exit_status: int | None) -> StepReport:
        """One update of every classifier. A classifier with too high a learning rate may overflow alone; the
        training ends when none has a finite loss."""
        h, y = batch
        losses, gradients = [], []
        for name, bank in self.banks.items():
            loss, weight, bias = bank.gradients(self.select(h, name), y, self.samples(step))
            losses.append(collectives.all_reduce(loss))
            gradients.append((collectives.all_reduce(weight), collectives.all_reduce(bias)))
        best = torch.cat(losses).nan_to_num(nan=torch.inf).min()
        decay = self.schedule.decay(
            step // self.steps_per_epoch, step / (self.schedule.epochs * self.steps_per_epoch)
        )
        report = step_report(best, (), exit_status, self.runtime)
        check_finite(report, best, StepContext(step, decay, None, ADVICE), scaled=False)
        for bank, (weight, bias) in zip(self.banks.values(), gradients, strict=True):
            bank.update(weight, bias, decay)
        return report

    def state_dict(self) -> dict[str, Any]:
        return {"heads": {name: bank.state_dict() for name, bank in self.banks.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, bank in self.banks.items():
            bank.load_state_dict(state["heads"][name])


def train_heads(
    banks: dict[str, ClassifierBank],
    source: FeatureBatches,
    select: Select,
    schedule: ClassifierSchedule,
    runtime: Runtime,
    *,
    after_epoch: Callable[[int], Notes] = lambda epoch: {},
    saved: SavedTraining | None = None,
) -> list[Notes]:
    """Trains every bank in place, each on its selection of layers, and returns what `after_epoch` noted.

    Gradients are those of the mean over the whole batch, whatever the number of ranks.

    Raises:
        UserError: no classifier has a finite loss; the update was not made.
        SystemExit: a signal arrived; the state is saved where `saved` is given.
    """
    training = _BankTraining(banks, source, select, schedule, runtime)
    return train_epochs(training, schedule.epochs, runtime, after_epoch=after_epoch, saved=saved)
