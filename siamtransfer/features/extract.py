"""Images through a frozen backbone: extract(backbone, images) -> features[N, D], in the set's order.

Legend: N images, D features, C classes, and in a shape of pixels C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.progress import PassProgress
from siamtransfer.metering.meter import ImageClock
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.workers import worker_init
from siamtransfer.views.crop import centre_crop
from siamtransfer.views.view_spec import Interpolation

PIXEL_SIDE = 32  # of the crops whose pixels are a baseline, where the transform's own would be too many
PIXEL_BYTES = (
    4 << 30
)  # of the pixels of all images in float32, up to which the transform's own crops are taken


class Images(Protocol):
    """The part of an image set that extraction uses (see siamtransfer.data.imageset.ImageSet)."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Transform:
    """The evaluation transform: shorter side to `resize` (None: not resized), central `crop`, normalise.

    Attributes:
        crop: side of the central square in pixels.
        resize: length of the shorter side in pixels before the crop, or None.
        mean, std: per channel, for values from 0 to 1.
    """

    crop: int
    resize: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class Pass:
    """How a pass over images runs.

    Attributes:
        batch: images that are computed at once.
        workers: processes that decode.
        between_batches: called before every batch, equally often on every rank, so that it may be a
            collective. What it raises ends the pass; with several ranks it must raise on all.
        what: begins the lines of progress.
    """

    runtime: Runtime
    batch: int = 256
    workers: int = 0
    between_batches: Callable[[], None] | None = None
    what: str = "features"


@dataclass(frozen=True)
class FeatureOrigin:
    """What features were computed from and how, so that a result of them can record it.

    Attributes:
        images: name and split of the set, such as `cifar10/train`.
        fingerprint: of the images.
        backbone: what identifies the network: source, architecture, format, branch and digest of the weights.
        settings: what moves the features: transform, layers and precision.
    """

    images: str
    fingerprint: str
    backbone: dict[str, Any]
    settings: dict[str, Any]


@dataclass
class Features:
    """The features of a set of images, in its order.

    Attributes:
        features: float32[N, D]; or an array of any float type that is mapped from a file.
        labels: int64[N]; or int64[N, C] of 0 and 1, for several labels an image; None without labels.
        origin: what they were computed from, where that is known.
    """

    features: Tensor | np.ndarray
    labels: Tensor | None
    origin: FeatureOrigin | None = None

    @property
    def tensor(self) -> Tensor:
        """The features, which must be in memory."""
        assert isinstance(self.features, Tensor)
        return self.features


def evaluation_transform(
    crop: int,
    image_size: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: Interpolation = "bilinear",
) -> Transform:
    """The usual transform: shorter side to 8/7 of the crop (256 for 224) and a central crop. Square images of
    `image_size` equal to the crop are not resized."""
    resize = None if image_size == crop else round(crop * 8 / 7)
    return Transform(crop, resize, tuple(mean), tuple(std), interpolation)


def pixel_transform(transform: Transform, images: int, channels: int = 3) -> Transform:
    """The transform of the baseline without a network, for `images` images in all: `transform` itself where
    its pixels take at most PIXEL_BYTES in float32 or the crop is small; else the same part of the image,
    resized to a crop of PIXEL_SIDE."""
    if transform.crop <= PIXEL_SIDE or images * 4 * channels * transform.crop**2 <= PIXEL_BYTES:
        return transform
    resize = PIXEL_SIDE
    if transform.resize is not None:
        resize = round(transform.resize * PIXEL_SIDE / transform.crop)
    return replace(transform, crop=PIXEL_SIDE, resize=resize)


def extract(
    backbone: nn.Module,
    images: Images,
    transform: Transform,
    runtime: Runtime,
    *,
    batch: int = 256,
    workers: int = 0,
) -> Tensor:
    """h = f(x) for every image: float32[N, D] on the CPU, the same on every rank.

    The backbone runs in eval mode and returns to its former mode; no tensor of it changes. With several ranks
    each takes every world_size-th image, and no image is counted twice.

    Raises:
        UnreadableImage: evaluation stops at a bad image and names it.
        UserError: a feature is not finite.
    """
    share = extract_share(backbone, images, transform, Pass(runtime, batch=batch, workers=workers))
    return collectives.all_gather_rows(share, len(images), runtime.device)


def extract_share(
    backbone: nn.Module,
    images: Images,
    transform: Transform,
    options: Pass,
    store: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """This rank's rows of `extract`, of the images rank, rank + world_size, … [n, D] on the CPU.

    `store` makes what is kept of the features float32[b, D] of a batch, row by row and on the device.

    Raises:
        UnreadableImage, UserError: see `extract`; where one rank raises, all do.
    """
    runtime = options.runtime
    forward = forward_of(backbone, transform, runtime, store)
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.inference_mode(), runtime.autocast():
            return _rows_of_share(images, transform, options, forward)
    finally:
        backbone.train(was_training)


def forward_of(
    backbone: nn.Module,
    transform: Transform,
    runtime: Runtime,
    store: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[Tensor], Tensor]:
    """What makes features float32[b, D], on the CPU, of crops uint8[b, C, crop, crop]; for a backbone in eval
    mode. `store`: see `extract_share`. It raises UserError where a feature is not finite."""
    mean = torch.tensor(transform.mean, device=runtime.device).view(1, -1, 1, 1) * 255
    std = torch.tensor(transform.std, device=runtime.device).view(1, -1, 1, 1) * 255

    def forward(crops: Tensor) -> Tensor:
        x = (crops.to(runtime.device, non_blocking=True).float() - mean) / std
        h: Tensor = backbone(x.contiguous(memory_format=torch.channels_last)).float()
        kept = (h if store is None else store(h)).cpu()
        if not bool(torch.isfinite(h).all()):
            raise UserError(
                "the backbone gives features that are not finite: its weights are damaged, or "
                f"{runtime.precision} is too narrow for it (try --hardware.precision float32)"
            )
        return kept

    return forward


def extract_pixels(
    images: Images, transform: Transform, *, workers: int = 0, runtime: Runtime | None = None
) -> Tensor:
    """The baseline without a network: the central crop's pixels in [0, 1], float32[N, C * crop * crop], the
    same on every rank of `runtime` (None: this process alone)."""
    if runtime is None:
        runtime = Runtime(torch.device("cpu"), torch.float32)
        return pixel_share(images, transform, Pass(runtime, workers=workers)).float().div_(255)
    share = pixel_share(images, transform, Pass(runtime, workers=workers))
    return collectives.all_gather_rows(share, len(images), runtime.device).float().div_(255)


def pixel_share(images: Images, transform: Transform, options: Pass) -> Tensor:
    """The pixels of this rank's images (rank, rank + world_size, …): uint8[n, C * crop * crop].

    Raises:
        UnreadableImage: an image of some rank cannot be read.
    """
    return _rows_of_share(images, transform, options, lambda crops: crops.flatten(1))


def _rows_of_share(
    images: Images, transform: Transform, options: Pass, compute: Callable[[Tensor], Tensor]
) -> Tensor:
    """What `compute` makes of the crops uint8[b, C, crop, crop] of this rank's images, one below the other.

    The rows are written into one tensor, for a list of batches would be in memory twice when it is joined.
    A rank whose image is bad goes through the remaining rounds without working, so that all ranks call
    `between_batches` equally often.
    """
    runtime, batch = options.runtime, options.batch
    local_indices = range(runtime.rank, len(images), runtime.world_size)
    loader = DataLoader(
        _CentreCrops(images, local_indices, transform),
        batch_size=batch,
        num_workers=options.workers,
        worker_init_fn=worker_init() if options.workers else None,
        pin_memory=runtime.device.type == "cuda",
    )
    progress = PassProgress(options.what, len(images), shown=runtime.is_main)
    rows: Tensor | None = None
    error: UserError | None = None
    clock, batches = ImageClock(), iter(loader)
    for number in range(-(-len(images) // (batch * runtime.world_size))):
        if options.between_batches:
            options.between_batches()
        if error is not None or number * batch >= len(local_indices):
            continue
        try:
            computed = compute(next(batches))
        except UserError as problem:
            error = problem
            continue
        if rows is None:
            with torch.inference_mode(False):  # an ordinary tensor, which gradients may meet later
                rows = torch.empty(len(local_indices), computed.shape[1], dtype=computed.dtype)
        rows[number * batch : number * batch + len(computed)] = computed
        clock.count(len(computed))
        progress.done((number * batch + len(computed)) * runtime.world_size)
    if runtime.world_size == 1:
        if error is not None:
            raise error
        return torch.empty(0, 0) if rows is None else rows
    with collectives.own_pace("extracting features"):  # which a slow disk delays; an error is that of all
        if error is not None:
            raise error
    kinds = collectives.all_gather_object([] if rows is None else [(rows.shape[1], rows.dtype)])
    return torch.empty(0, kinds[0][0], dtype=kinds[0][1]) if rows is None else rows


class _CentreCrops(Dataset[Tensor]):
    """The central crops uint8[C, crop, crop] of the images `indices`."""

    def __init__(self, images: Images, indices: Sequence[int], transform: Transform):
        self.images, self.indices, self.transform = images, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> Tensor:
        image = self.images.image(self.indices[row])
        return centre_crop(image, self.transform.resize, self.transform.crop, self.transform.interpolation)
