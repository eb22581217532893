"""Training images with labels, epoch after epoch: random crops and flips, made on the device of the
training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

from siamtransfer.data.readers import StrictReader
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.extract import Images, Transform
from siamtransfer.views.dataset import SampleKey, ViewSet, augment_batch
from siamtransfer.views.loading import build_loader
from siamtransfer.views.sampler import epoch_order
from siamtransfer.views.view_spec import Recipe, ViewSpec


def crops_and_flips(transform: Transform) -> Recipe:
    """The usual training transform of classifiers, one bilinear view of the evaluation transform's size: a
    crop of 8 to 100 % of the area, and a flip half of the time."""
    view = ViewSpec(transform.crop, jitter_p=0.0, grey_p=0.0)
    source = "the usual training transform of linear probes"
    return Recipe("crops-and-flips", (view,), transform.mean, transform.std, source, rgb=())


@dataclass
class AugmentedImages:
    """Batches of `images`, of which `indices` int64[n] take part, in a new order every epoch.

    The order is a function of (seed, epoch) and every crop of (seed, epoch, image), so ranks can divide a
    batch between them and any step can be the first. The last batch of an epoch may be smaller; `drop_last`
    leaves it out.
    """

    images: Images
    labels: Tensor
    indices: np.ndarray
    recipe: Recipe
    batch: int
    runtime: Runtime
    seed: int = 0
    workers: int = 0
    drop_last: bool = False

    @property
    def steps_per_epoch(self) -> int:
        return len(self.indices) // self.batch if self.drop_last else -(-len(self.indices) // self.batch)

    def batches(self, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """x float32[n, 3, S, S] and labels int64[n] of this rank's part of each batch, on the device, from
        step `start` up to `steps`."""
        device = self.runtime.device
        loader = build_loader(
            ViewSet(StrictReader(self.images), self.recipe, self.seed, len(self.images)),
            _LocalSamples(self, start, steps),
            workers=self.workers,
            pin_memory=device.type == "cuda",
        )
        for views in loader:
            x = augment_batch(views, self.recipe, device, channels_last=True)[0]
            yield x, self.labels[views.index].to(device)


class _LocalSamples(Sampler[list[SampleKey]]):
    """This rank's sample keys of every batch from step `start` up to `steps`."""

    def __init__(self, source: AugmentedImages, start: int, steps: int):
        self.source, self.start, self.steps = source, start, steps

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        source = self.source
        for step in range(self.start, self.steps):
            epoch, number = divmod(step, source.steps_per_epoch)
            if step == self.start or number == 0:
                order = source.indices[epoch_order(len(source.indices), source.seed, epoch)]
            block = order[number * source.batch : (number + 1) * source.batch]
            yield [(epoch, int(index)) for index in block[local_part(len(block), source.runtime)]]


def local_part(n: int, runtime: Runtime) -> slice:
    """The rows of this rank among `n` rows that the ranks divide between them, as equally as possible."""
    return slice(
        runtime.rank * n // runtime.world_size,
        (runtime.rank + 1) * n // runtime.world_size,
    )
