"""The order of training images as a function of seed and position, so that a resumed run goes on in it.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from torch import Tensor


@dataclass(frozen=True)
class ResumedOrder:
    """Detectron2's endless streams of image indices by `seed`, without the first `skip` of all ranks."""

    seed: int
    skip: int

    def shuffled(self, images: int) -> ResumedSampler:
        """Each image once in an epoch."""
        return ResumedSampler(images, self.seed, self.skip)

    def repeated(self, factors: Tensor) -> ResumedRepeatSampler:
        """Image k `factors[k]` times in an epoch, on average; factors: float32[images]."""
        return ResumedRepeatSampler(factors, self.seed, self.skip)


class ResumedSampler(TrainingSampler):
    """Detectron2's endless shuffled stream of image indices, without its first `skip` ones."""

    def __init__(self, size: int, seed: int, skip: int):
        super().__init__(size, seed=seed)
        self.skip = skip

    def __iter__(self) -> Iterator[int]:
        return _from(self, self.skip)


class ResumedRepeatSampler(RepeatFactorTrainingSampler):
    """Detectron2's stream in which images of rare classes come more often, without its first `skip` ones."""

    def __init__(self, factors: Tensor, seed: int, skip: int):
        super().__init__(factors, seed=seed)
        self.skip = skip

    def __iter__(self) -> Iterator[int]:
        return _from(self, self.skip)


def _from(sampler: ResumedSampler | ResumedRepeatSampler, skip: int) -> Iterator[int]:
    """This rank's share of the stream that all ranks have alike, from position `skip` on."""
    for position, index in enumerate(sampler._infinite_indices()):
        if position >= skip and position % sampler._world_size == sampler._rank:
            yield index
