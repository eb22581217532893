"""The options of the few-shot evaluator. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from siamtransfer.evaluation.config import EvaluationConfig, OneCheckpointConfig
from siamtransfer.utils.errors import UserError


@dataclass
class FewshotConfig(OneCheckpointConfig):
    """The few-shot evaluator's own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (*EvaluationConfig.common, "shots", "repeats", "strengths")

    shots: list[int] = field(default_factory=lambda: [1, 2, 5, 10])
    """Labels of each class; numbers that the smallest class does not have are left out, with a remark."""
    repeats: int = 5
    """Draws of the labelled images; the number of a draw is its seed."""
    strengths: list[float] = field(default_factory=lambda: [1.0])
    """Values of scikit-learn's C."""

    def check(self) -> None:
        super().check()
        if min(self.shots, default=0) < 1 or self.repeats < 2 or min(self.strengths, default=0) <= 0:
            raise UserError("--shots must be at least 1, --repeats at least 2 and --strengths above 0")
