"""The images of each step: a pure function of (seed, step), so that training can start at any step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

SampleKey = tuple[int, int]
"""(epoch, image index): with the seed, all that a worker needs to make the views of an image."""


class StepSampler(Sampler[list[SampleKey]]):
    """Yields one rank's sample keys for each step from `start` to `steps`, over epoch borders.

    Every epoch is a new permutation of all images, of which the last, incomplete batch is left out. Rank r
    takes the r-th block of each global batch, so the samples of a step do not depend on `world_size`.
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
        self.local_rows = slice(rank * batch // world_size, (rank + 1) * batch // world_size)

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start, self.steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            order = epoch_order(self.images, self.seed, epoch)
            block = order[position * self.batch : (position + 1) * self.batch][self.local_rows]
            yield [(epoch, int(index)) for index in block]


@lru_cache(maxsize=2)
def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation int64[images] of `epoch`."""
    return np.random.Generator(np.random.Philox([seed, epoch])).permutation(images)
