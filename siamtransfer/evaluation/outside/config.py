"""The options of the outside evaluator. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from siamtransfer.evaluation.config import EvaluationConfig, OneCheckpointConfig
from siamtransfer.evaluation.linear.config import STRENGTHS
from siamtransfer.evaluation.named_folders import require_distinct, split_word
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_record

CLEAN, HELD_OUT = "clean", "held-out"
"""The names, in a record, of the test split and of the images of held-out classes."""
NOISE = "noise"
"""The outside set of random pixels."""
_TAKEN = (CLEAN, "mean", "calibration", "linear")


@dataclass
class OutsideConfig(OneCheckpointConfig):
    """The outside evaluator's own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (*EvaluationConfig.common, "outside", "hold_out", "k")

    outside: list[str] = field(default_factory=list)
    """Sets of unknown images. NAME=FOLDER is all images below a folder, or, where NAME is a set that is known
    by name (dtd, svhn …), its test split there; NAME alone an embedded set, or noise, which is random pixels.
    Beside feature files NAME=FILE.npz, which needs no labels."""
    hold_out: list[str] = field(default_factory=list)
    """Classes of the set itself that are unknown: left out of train, and their test images an outside set."""
    strengths: list[float] = field(default_factory=lambda: list(STRENGTHS))
    """Values of scikit-learn's C for the head."""
    standardise: bool = False
    """Give every feature unit deviation before the head."""
    k: int = 50
    """knn: the neighbour whose distance counts; one above the number of train images becomes that, with a
    remark."""
    resamples: int = 1000
    """Resamples of the bootstrap."""
    seed: int = 0
    """Decides the held-out parts of train and the resamples."""

    @property
    def outside_sets(self) -> dict[str, str | None]:
        """The folder, or feature file, of each outside set by its name; None for a name alone."""
        return dict(split_word("--outside", word) for word in self.outside)

    @property
    def set_names(self) -> list[str]:
        """The names of all that gets a record beside the first."""
        return [*self.outside_sets, *([HELD_OUT] if self.hold_out else [])]

    def check(self) -> None:
        super().check()
        names = [split_word("--outside", word)[0] for word in self.outside]
        require_distinct("--outside", [*names, *([HELD_OUT] if self.hold_out else [])], _TAKEN)
        if not self.set_names:
            raise UserError(
                "there are no unknown images: name a set with --outside NAME=FOLDER, or classes of the set "
                "itself with --hold-out"
            )
        if len(set(self.hold_out)) < len(self.hold_out):
            raise UserError("--hold-out names one class twice")
        if min(self.strengths, default=0) <= 0:
            raise UserError("--strengths must be above 0")
        at_least("--k", self.k, 1)
        at_least("--resamples", self.resamples, 100)
        at_least("--seed", self.seed, 0)
        refuse_record(self.record, self.set_names)
