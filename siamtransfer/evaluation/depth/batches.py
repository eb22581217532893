"""Augmented batches of images with depth maps, a function of the seed and the step.

Legend: b images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.evaluation.dense.input_size import InputSize, to_input
from siamtransfer.evaluation.depth.augment import DepthRecipe
from siamtransfer.evaluation.depth.data.depth_images import DepthImages, read_pair
from siamtransfer.utils.errors import UserError

_MOST_THREADS = 8


@dataclass(frozen=True)
class Batches:
    """Augmented batches of a set; those of a step depend on the seed and its number alone.

    Attributes:
        size: of whole images in front of the network; crops are scaled by the same factor.
        one_size: whether the network takes images of that size only, and crops are scaled to it.
    """

    images: DepthImages
    recipe: DepthRecipe
    size: InputSize
    batch: int
    seed: int
    one_size: bool = False

    def take(self, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(pixels uint8[b, 3, h, w], depths float32[b, H, W]) of the steps from `start` up to `steps`;
        threads read the next batch meanwhile."""
        with ThreadPoolExecutor(min(_MOST_THREADS, cpu_count())) as pool:
            ahead = self._submit(pool, start) if start < steps else []
            for step in range(start, steps):
                current, ahead = ahead, self._submit(pool, step + 1) if step + 1 < steps else []
                pixels, depths = zip(*(future.result() for future in current), strict=True)
                yield _stack(pixels), _stack(depths)

    def _submit(self, pool: ThreadPoolExecutor, step: int) -> list[Future[tuple[Tensor, Tensor]]]:
        places = range(step * self.batch, (step + 1) * self.batch)
        return [pool.submit(self._sample, place) for place in places]

    def _sample(self, place: int) -> tuple[Tensor, Tensor]:
        """The sample at a place of the endless order: every epoch is another permutation of the images."""
        epoch, position = divmod(place, len(self.images))
        index = int(np.random.default_rng([self.seed, epoch]).permutation(len(self.images))[position])
        image, depth = read_pair(self.images, index)
        whole = depth.shape
        generator = np.random.default_rng([self.seed, 1, place])
        image, depth = self.recipe.apply(image, depth, generator, self.images.describe(index))
        size = self._input(whole, depth.shape)
        return to_input(image, size), torch.from_numpy(np.array(depth, np.float32))

    def _input(self, whole: tuple[int, ...], part: tuple[int, ...]) -> tuple[int, int]:
        """The size of a crop of these sides in front of the network."""
        height, width = self.size.of(whole[0], whole[1])
        if self.one_size or (self.recipe.crop is None and part == whole):
            return height, width
        multiple = self.size.multiple
        sides = (
            round(new * cut / old / multiple) * multiple
            for new, cut, old in zip((height, width), part, whole, strict=True)
        )
        h, w = (max(side, multiple) for side in sides)
        return h, w


def _stack(tensors: tuple[Tensor, ...]) -> Tensor:
    shapes = {tuple(tensor.shape[-2:]) for tensor in tensors}
    if len(shapes) > 1:
        (h1, w1), (h2, w2) = sorted(shapes)[:2]
        raise UserError(
            f"the train images have several sizes ({w1} x {h1} and {w2} x {h2} in one batch): give --crop "
            f"HEIGHT WIDTH for the probe bins"
        )
    return torch.stack(tensors)
