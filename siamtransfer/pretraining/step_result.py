"""One finished training step, as the logger and the monitors see it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from siamtransfer.methods import StepOutput
from siamtransfer.training.device_guard import LateReport
from siamtransfer.training.guard import StepReport

SAVE_WISH = 1
"""In the place of the exit status of a signal, which is above 128: rank 0 wishes to save after this step."""


@dataclass(frozen=True)
class StepResult:
    """The step and what it computed.

    Attributes:
        step: how many steps are done, this one included.
        output: the method's output of this rank's last micro-batch.
        views: what the method was given on this rank: the augmented views, each [N, 3, S, S], and mixed ones
            after them where the recipe mixes (`by_role` of methods/parts/mixing.py tells them apart).
        unreadable: (where, why) of this rank's images that were replaced.
    """

    step: int
    lr: float
    report: StepReport | LateReport
    output: StepOutput
    views: list[Tensor]
    unreadable: list[tuple[str, str]]

    @property
    def stopping(self) -> bool:
        """Whether the run ends after this step because a signal arrived, or rank 0 cannot write."""
        return (self.report.exit_status or 0) > SAVE_WISH

    @property
    def save_wished(self) -> bool:
        """Whether rank 0 has told all ranks that it is time to save."""
        return self.report.exit_status == SAVE_WISH
