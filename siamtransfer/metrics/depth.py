"""Errors of a predicted depth map: the measures of Eigen et al. (arXiv 1406.2283), of every image by itself.

The number of a set is the mean over its images, as in the evaluation of BTS (arXiv 1907.10326), AdaBins
(arXiv 2011.14141) and the Monocular-Depth-Estimation-Toolbox, which DINOv2's was made with. The root mean
square over the pixels of all images (`pooled_rmse`) is another and a larger number.

Legend: H and W pixels, N images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from siamtransfer.utils.errors import UserError

RATIO = 1.25
"""delta1 is the share of pixels that are wrong by less than this factor; delta2 and delta3 by its powers."""
ERRORS = ("rmse", "abs_rel", "log10", "silog")
"""Measures of which the lower is better."""
SHARES = ("delta1", "delta2", "delta3")
"""Fractions from 0 to 1 of which the higher is better."""


class DepthScores(NamedTuple):
    """The measures of one image.

    rmse: metres. abs_rel: the mean of |p - t| / t. log10: the mean of |log10 p - log10 t|. silog: the
    standard deviation of ln p - ln t, which no change of scale moves, times 100. delta1 to delta3:
    fractions of the pixels with max(p / t, t / p) < 1.25, 1.25^2 and 1.25^3.
    """

    rmse: float
    abs_rel: float
    log10: float
    silog: float
    delta1: float
    delta2: float
    delta3: float


class DepthRange(NamedTuple):
    """Depths in metres that count, both ends excluded; 0 means that a pixel has none."""

    low: float
    high: float

    def valid(self, depth: np.ndarray) -> np.ndarray:
        """bool of the shape of `depth`."""
        inside: np.ndarray = (depth > self.low) & (depth < self.high)
        return inside


def score_depth(predicted: np.ndarray, truth: np.ndarray) -> DepthScores:
    """The measures of float[n] predicted depths of the pixels that count, all above 0, n at least 1.

    Raises:
        UserError: a prediction is not finite or not above 0.
    """
    p, t = predicted.astype(np.float64), truth.astype(np.float64)
    if not (np.isfinite(p).all() and p.min() > 0):
        raise UserError("a predicted depth is not finite or not above 0, so it cannot be scored")
    log_ratio = np.log(p) - np.log(t)
    ratio = np.maximum(p / t, t / p)
    shares = [float((ratio < RATIO**power).mean()) for power in (1, 2, 3)]
    return DepthScores(
        float(np.sqrt(np.square(p - t).mean())),
        float((np.abs(p - t) / t).mean()),
        float(np.abs(log_ratio).mean() / np.log(10)),
        100 * float(log_ratio.std()),
        *shares,
    )


@dataclass
class ImageDepthScores:
    """The measures of N images, and the sums over all their pixels."""

    images: list[int] = field(default_factory=list)
    scores: list[DepthScores] = field(default_factory=list)
    pixels: int = 0
    squares: float = 0.0

    def add(self, image: int, predicted: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> None:
        """Scores predicted[H, W] against truth[H, W] where counted[H, W]; an image without a pixel that
        counts is left out."""
        p, t = predicted[counted], truth[counted]
        if not len(t):
            return
        self.images.append(image)
        self.scores.append(score_depth(p, t))
        self.pixels += len(t)
        self.squares += float(np.square(p.astype(np.float64) - t).sum())

    def values(self, measure: str) -> np.ndarray:
        """float64[N]: a measure of every image."""
        return np.array([getattr(scores, measure) for scores in self.scores], np.float64)

    @property
    def pooled_rmse(self) -> float:
        """The root of the mean squared error over the pixels of all images, in metres."""
        return float(np.sqrt(self.squares / self.pixels)) if self.pixels else float("nan")
