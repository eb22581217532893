"""A learning rate that falls when the loss no longer does: the one schedule that has a state."""

from __future__ import annotations

from dataclasses import dataclass

from siamtransfer.optim.config import OptimConfig


@dataclass
class Plateau:
    """What the schedule `plateau` remembers; a checkpoint holds it.

    After each epoch that follows the warm-up, the mean loss of its steps, over all ranks, is held against the
    lowest one so far. An epoch is better where it is lower by more than `optim.plateau_margin`. After
    `optim.plateau_patience` epochs in a row that are not, the share is multiplied by `optim.plateau_factor`,
    and the count starts anew.

    Attributes:
        share: what multiplies the initial learning rate.
        best: the lowest mean loss of an epoch that was better; None before the first.
        waited: epochs since then, or since the share fell.
        total, count: sum and number of the losses of the current epoch.
    """

    share: float = 1.0
    best: float | None = None
    waited: int = 0
    total: float = 0.0
    count: int = 0

    def follow(self, loss: float, config: OptimConfig, *, ends_epoch: bool) -> None:
        """Takes in the loss of a step; `ends_epoch` says whether it was the last one of its epoch."""
        self.total, self.count = self.total + loss, self.count + 1
        if not ends_epoch:
            return
        mean = self.total / self.count
        self.total, self.count = 0.0, 0
        if self.best is None or mean < self.best - config.plateau_margin:
            self.best, self.waited = mean, 0
            return
        self.waited += 1
        if self.waited >= config.plateau_patience:
            self.share, self.waited = self.share * config.plateau_factor, 0
