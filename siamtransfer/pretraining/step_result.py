"""One finished training step, as the logger and the monitors see it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from siamtransfer.methods import StepOutput
from siamtransfer.training.guard import StepReport


@dataclass(frozen=True)
class StepResult:
    """The step and what it computed.

    Attributes:
        step: how many steps are done, this one included.
        output: the method's output of this rank's last micro-batch.
        views: this rank's augmented views, each [N, 3, S, S].
        unreadable: (where, why) of this rank's images that were replaced.
    """

    step: int
    lr: float
    report: StepReport
    output: StepOutput
    views: list[Tensor]
    unreadable: list[tuple[str, str]]

    @property
    def stopping(self) -> bool:
        """Whether the run ends after this step because a signal arrived."""
        return self.report.exit_status is not None
