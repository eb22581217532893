"""Sets of which some images cannot be read: which these are, and the features of the others.

Legend: N images, b of a block, D features, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from siamtransfer.data.readers import ReportingReader
from siamtransfer.data.unreadable import BadImage
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.extract import Images, Pass, Transform, forward_of
from siamtransfer.features.progress import PassProgress
from siamtransfer.metering.meter import ImageClock
from siamtransfer.utils.workers import worker_init
from siamtransfer.views.crop import centre_crop

CHECKED_AT_ONCE = 64  # images between two answers of a worker that reads them and keeps nothing


@dataclass(frozen=True)
class FeatureBlock:
    """Features of some images of a set, in its order, and the bad images among them. All indices of the next
    block are larger.

    Attributes:
        indices: int64[b], rising: the images.
        features: float32[b, D] on the CPU.
        sizes: int64[b, 2]: H and W of each image as it was read.
        bad: unreadable images, in the order of the set.
    """

    indices: np.ndarray
    features: Tensor
    sizes: np.ndarray
    bad: list[BadImage]


def feature_blocks(
    backbone: nn.Module | None, images: Images, transform: Transform, options: Pass
) -> Iterator[FeatureBlock]:
    """The features of all readable images, a block of `options.batch` at a time, in one process.

    Each image of the set is in one block, as readable or as bad. Memory is that of some batches, whatever
    N. A batch is filled up with the next readable images, so the numbers are those of `extract` on the
    readable images alone, bit for bit. Without a backbone they are pixels in [0, 1], as of `extract_pixels`.
    The backbone is in eval mode while a block is computed and has its former mode in between.

    Raises:
        UserError: a feature is not finite.
    """
    compute = _pixels if backbone is None else forward_of(backbone, transform, options.runtime)
    progress = PassProgress(options.what, len(images), shown=options.runtime.is_main)
    clock = ImageClock()
    for indices, crops, sizes, bad in _batches(images, transform, options):
        features = (
            torch.empty(0, 0) if crops is None else _computed(backbone, compute, crops, options.runtime)
        )
        clock.count(len(indices))
        yield FeatureBlock(indices, features, sizes, bad)
        clock.restart()
        progress.done(max([0, *indices[-1:], *(image.index for image in bad[-1:])]) + 1)


def find_unreadable(images: Images, runtime: Runtime, *, workers: int = 0) -> list[BadImage]:
    """The images that cannot be read, in the order of the set; the same on every rank.

    Each rank reads every world_size-th image and keeps nothing of it.

    Raises:
        UserError: on every rank, where an image of one has a fault of another kind.
    """
    local_indices = range(runtime.rank, len(images), runtime.world_size)
    loader = DataLoader(
        _Checked(images, local_indices),
        batch_size=CHECKED_AT_ONCE,
        num_workers=workers,
        collate_fn=_found,
        worker_init_fn=worker_init() if workers else None,
    )
    progress = PassProgress("looking for unreadable images", len(images), shown=runtime.is_main)
    bad: list[BadImage] = []
    with collectives.own_pace("looking for unreadable images"):
        for number, found in enumerate(loader, start=1):
            bad += found
            progress.done(min(number * CHECKED_AT_ONCE * runtime.world_size, len(images)))
    return sorted(collectives.all_gather_object(bad))


def _computed(
    backbone: nn.Module | None, compute: Callable[[Tensor], Tensor], crops: Tensor, runtime: Runtime
) -> Tensor:
    """`compute` of crops, with the backbone in eval mode."""
    was_training = backbone is not None and backbone.training
    if backbone is not None:
        backbone.eval()
    try:
        with torch.inference_mode(), runtime.autocast():
            return compute(crops)
    finally:
        if backbone is not None:
            backbone.train(was_training)


def _pixels(crops: Tensor) -> Tensor:
    return crops.flatten(1).float().div_(255)


def _batches(
    images: Images, transform: Transform, options: Pass
) -> Iterator[tuple[np.ndarray, Tensor | None, np.ndarray, list[BadImage]]]:
    """Indices int64[b], crops uint8[b, C, crop, crop] and sizes int64[b, 2] of `options.batch` readable
    images, fewer at the end, with the bad ones up to there; crops are None where only bad ones are left."""
    loader = DataLoader(
        _Crops(images, transform),
        batch_size=options.batch,
        num_workers=options.workers,
        collate_fn=list,
        worker_init_fn=worker_init() if options.workers else None,
    )
    waiting: list[_Crop] = []
    bad: list[BadImage] = []
    for items in loader:
        waiting += [item for item in items if isinstance(item, _Crop)]
        bad += [item for item in items if isinstance(item, BadImage)]
        if len(waiting) >= options.batch:
            full, waiting = waiting[: options.batch], waiting[options.batch :]
            end = waiting[0].index if waiting else len(images)
            yield _joined(full, [image for image in bad if image.index < end])
            bad = [image for image in bad if image.index > end]
    if waiting or bad:
        yield _joined(waiting, bad)


@dataclass(frozen=True)
class _Crop:
    index: int
    pixels: Tensor
    size: tuple[int, int]


def _joined(
    crops: list[_Crop], bad: list[BadImage]
) -> tuple[np.ndarray, Tensor | None, np.ndarray, list[BadImage]]:
    indices = np.array([crop.index for crop in crops], dtype=np.int64)
    sizes = np.array([crop.size for crop in crops], dtype=np.int64).reshape(-1, 2)
    return indices, torch.stack([crop.pixels for crop in crops]) if crops else None, sizes, bad


class _Crops(Dataset["_Crop | BadImage"]):
    """The central crops of all images, or what is wrong with them."""

    def __init__(self, images: Images, transform: Transform):
        self.images, self.transform = images, transform
        self._read = ReportingReader(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> _Crop | BadImage:
        image = self._read(index)
        if isinstance(image, BadImage):
            return image
        transform = self.transform
        crop = centre_crop(image, transform.resize, transform.crop, transform.interpolation)
        return _Crop(index, crop, (image.shape[0], image.shape[1]))


class _Checked(Dataset["BadImage | None"]):
    """None for a readable image of `indices`, else what is wrong with it."""

    def __init__(self, images: Images, indices: range):
        self.indices, self._read = indices, ReportingReader(images)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> BadImage | None:
        image = self._read(self.indices[row])
        return image if isinstance(image, BadImage) else None


def _found(items: list[BadImage | None]) -> list[BadImage]:
    return [item for item in items if item is not None]
