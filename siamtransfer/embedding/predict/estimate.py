"""What few labels say of the accuracy on new images, and what they do not.

Legend: n images that were held out once, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from siamtransfer.embedding.predict.probe import FittedProbe

LEVEL = 0.95  # of the interval
ROUNDING = 1e-9  # of percentages that are equal


@dataclass(frozen=True)
class Estimate:
    """The cross-validated accuracy in percent, beside what needs no image.

    Attributes:
        images: n; 0 where no class has a second label, and the accuracy is not known.
        accuracy, low, high: with Wilson's interval; nan where n is 0.
        chance: of drawing among the classes.
        majority: of always saying the most frequent class.
    """

    images: int
    accuracy: float
    low: float
    high: float
    chance: float
    majority: float

    def metrics(self) -> dict[str, float]:
        """By the names of a record."""
        numbers = {"predict/chance": self.chance, "predict/majority": self.majority}
        if not self.images:
            return numbers
        return {
            "predict/cv/top1": self.accuracy,
            "predict/cv/top1/ci95_low": self.low,
            "predict/cv/top1/ci95_high": self.high,
            **numbers,
        }

    def sentences(self, labels: int) -> list[str]:
        """What a user should know, the estimate first."""
        beside = f"chance {self.chance:.1f} %, always the most frequent class {self.majority:.1f} %"
        if not self.images:
            return [
                f"no class has a second label, so the accuracy is not known and the probabilities are not "
                f"calibrated ({beside})"
            ]
        held_out = "" if self.images == labels else f" ({self.images} of them held out once)"
        lines = [
            f"estimated from {labels} labels{held_out}: {self.accuracy:.1f} % right, 95 % interval "
            f"{self.low:.1f} to {self.high:.1f} ({beside})"
        ]
        if self.accuracy <= self.majority + ROUNDING:
            lines.append(
                "warning: that is no better than always saying the most frequent class: the features do not "
                "tell these classes apart, or there are too few labels"
            )
        elif self.low <= self.majority:
            lines.append(
                "warning: that may be no better than always saying the most frequent class; "
                "more labels would tell"
            )
        return lines


def estimate(fitted: FittedProbe, labels: np.ndarray, classes: int) -> Estimate:
    """The estimate from labels int64[m], of which `fitted.held_out` were held out."""
    counts = np.bincount(labels, minlength=classes)
    chance, majority = 100 / classes, 100 * float(counts.max() / counts.sum())
    scored = fitted.held_out
    images = int(scored.sum())
    if not images:
        return Estimate(0, float("nan"), float("nan"), float("nan"), chance, majority)
    right = int((fitted.predicted[scored] == labels[scored]).sum())
    interval = stats.binomtest(right, images).proportion_ci(LEVEL, method="wilson")
    return Estimate(
        images, 100 * right / images, 100 * float(interval.low), 100 * float(interval.high), chance, majority
    )
