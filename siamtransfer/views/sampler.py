"""Which images make up which step: a pure function of (seed, step), so that any step can be the first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

Ticket = tuple[int, int]
"""(epoch, image index): all that a data-loader worker needs to know to make an image's views."""


class StepSampler(Sampler[list[Ticket]]):
    """Yields one rank's tickets for each step from `start` to `steps`, over epoch borders.

    Every epoch is a fresh permutation of all images of which the last, incomplete batch is left out. Rank r
    takes the r-th block of each global batch, so the set of samples of a step does not depend on `world`.
    """

    def __init__(
        self,
        images: int,
        batch: int,
        steps: int,
        *,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.images, self.batch, self.steps, self.seed, self.start = images, batch, steps, seed, start
        self.steps_per_epoch = images // batch
        self.share = slice(rank * batch // world_size, (rank + 1) * batch // world_size)

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Ticket]]:
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, self.steps_per_epoch)
            order = epoch_order(self.images, self.seed, epoch)
            block = order[place * self.batch : (place + 1) * self.batch][self.share]
            yield [(epoch, int(index)) for index in block]


@lru_cache(maxsize=2)
def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation int64[images] of `epoch`."""
    return np.random.Generator(np.random.Philox([seed, epoch])).permutation(images)
