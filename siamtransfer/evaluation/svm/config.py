"""The options of the linear SVMs. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from siamtransfer.evaluation.config import EvaluationConfig, OneCheckpointConfig
from siamtransfer.utils.errors import UserError

COSTS = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)
"""VISSL's values of C."""
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
"""Images of each class in the low-shot benchmark; the smallest class of VOC07 has 96 images."""
Stage = Literal["conv1", "res2", "res3", "res4", "res5"]
"""The stages of a ResNet, by VISSL's names; the keys of pooled_features.WINDOWS."""


@dataclass
class SvmConfig(OneCheckpointConfig):
    """The SVMs' own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (
        *EvaluationConfig.common,
        "protocol",
        "stage",
        "costs",
        "low_shot",
        "one_hot",
        "jobs",
        "sample",
    )

    protocol: Literal["vissl", "swav"] = "vissl"
    """vissl: squashed images, a stage's map averaged in windows; swav: a central crop, the output."""
    stage: Stage = "res5"
    """vissl: the stage whose map is averaged."""
    costs: list[float] = field(default_factory=lambda: list(COSTS))
    """Values of C."""
    folds: int = 3
    """Folds of train in cross-validation."""
    low_shot: list[int] | None = field(default=None, metadata={"may_be_empty": True})
    """Score low-shot classification, with these numbers of shots; without numbers 1 2 4 8 16 32 64 96."""
    draws: int = 5
    """low-shot: how often the images are drawn."""
    one_hot: bool = False
    """Take a set of one label an image, each class against the rest."""
    seed: int = 0
    """Decides draws and the order of LIBLINEAR."""
    jobs: int | None = None
    """Processes at most; null: one a processor."""
    sample: int = 0
    """Images of train that the SVMs are fitted to: by the seed, an equal part of every class; 0: all."""
    memory: float = 16.0
    """GiB that the SVMs may take: fewer processes run at once, and too large features are refused."""

    def check(self) -> None:
        super().check()
        if min(self.costs, default=0) <= 0:
            raise UserError("--costs must be above 0")
        if self.folds < 2 or self.draws < 1 or min(self.low_shot or [1]) < 1 or (self.jobs or 1) < 1:
            raise UserError("--folds must be at least 2, and --draws, --low-shot and --jobs at least 1")
        if self.sample < 0 or not self.memory > 0:
            raise UserError("--sample must be at least 1, or 0 for all, and --memory above 0")
        if self.layers != "output" and self.protocol == "vissl" and not self.train_features:
            raise UserError("--layers goes with --protocol swav; --protocol vissl takes a --stage")
        if self.stage != "res5" and (self.protocol != "vissl" or self.train_features):
            raise UserError("--stage goes with --protocol vissl on images; --protocol swav takes --layers")
