"""Steps and epochs of a pretraining run, and the learning rate of each step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from siamtransfer.methods import StepInfo
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import set_lr
from siamtransfer.optim.plateau import Plateau
from siamtransfer.training.device_guard import LateReport
from siamtransfer.training.guard import StepReport


@dataclass
class Schedule:
    """Functions of the step alone, of which no state is kept; what the schedule `plateau` remembers is
    given to them.

    Attributes:
        images: size of the data set.
        steps: of the whole run; the last, incomplete batch of an epoch is left out.

    Raises:
        UserError: `config` does not go together with so many images and ranks.
    """

    config: OptimConfig
    images: int
    world_size: int
    steps_per_epoch: int = field(init=False)
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        self.config.check(self.world_size, self.images)
        self.steps_per_epoch = self.images // self.config.batch_size
        self.steps = self.steps_per_epoch * self.config.epochs

    def set_lr(self, optimizer: torch.optim.Optimizer, step: int, plateau: Plateau) -> float:
        """Gives every parameter group its learning rate and weight decay for `step` (from 0); returns the
        scheduled learning rate."""
        scheduled = set_lr(optimizer, self.config, step, self.steps_per_epoch)
        if plateau.share != 1:
            for group in optimizer.param_groups:
                group["lr"] *= 1 if group["constant_rate"] else plateau.share
        return scheduled * plateau.share

    def follow(self, plateau: Plateau, done: int, report: StepReport | LateReport) -> None:
        """Tells `plateau` the loss of the step that made `done`, after the warm-up; nothing under another
        schedule."""
        if self.config.schedule == "plateau" and done > self.config.warmup_epochs * self.steps_per_epoch:
            plateau.follow(report.loss, self.config, ends_epoch=self.ends_epochs(done, 1))

    def info(self, step: int) -> StepInfo:
        """What a method is told about `step` (from 0)."""
        return StepInfo(step, self.steps, self.steps_per_epoch)

    def ends_epochs(self, done: int, every: int) -> bool:
        """Whether `done` steps complete a multiple of `every` epochs, or the run; False if `every` is 0."""
        return every > 0 and (done == self.steps or done % (every * self.steps_per_epoch) == 0)
