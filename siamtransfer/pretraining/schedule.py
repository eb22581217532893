"""Steps and epochs of a pretraining run, and the learning rate of each step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from siamtransfer.methods import StepInfo
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import set_lr


@dataclass
class Schedule:
    """Functions of the step alone, of which no state is kept.

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

    def set_lr(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Gives every parameter group its learning rate and weight decay for `step` (from 0); returns the
        scheduled learning rate."""
        return set_lr(optimizer, self.config, step, self.steps_per_epoch)

    def info(self, step: int) -> StepInfo:
        """What a method is told about `step` (from 0)."""
        return StepInfo(step, self.steps, self.steps_per_epoch)

    def ends_epochs(self, done: int, every: int) -> bool:
        """Whether `done` steps complete a multiple of `every` epochs, or the run; False if `every` is 0."""
        return every > 0 and (done == self.steps or done % (every * self.steps_per_epoch) == 0)
