"""How learning rates and weight decay run over training, as functions of numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence


def cosine(start: float, end: float, done: float) -> float:
    """From `start` (done 0) to `end` (done 1) along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def warm_up(start: float, step: int, steps: int, *, reaches_peak: bool) -> float:
    """The share of the peak at `step` of a linear warm-up of `steps` from the share `start`; its last step
    has the peak itself if `reaches_peak`, else the step after it is the first to have it."""
    return start + (1 - start) * step / max(steps - reaches_peak, 1)


def milestones(epoch: int, epochs: Sequence[int]) -> float:
    """A tenth of the share before from each of `epochs` on."""
    return 0.1 ** sum(epoch >= milestone for milestone in epochs)
