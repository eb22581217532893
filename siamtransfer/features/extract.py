"""Images through a frozen backbone: extract(backbone, images) -> features[N, D], in the set's order.

Legend: N images, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.errors import UserError
from siamtransfer.views.crop import centre_crop
from siamtransfer.views.view_spec import Interpolation


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
    local_indices = range(runtime.rank, len(images), runtime.world_size)
    loader = DataLoader(
        _CentreCrops(images, local_indices, transform),
        batch_size=batch,
        num_workers=workers,
        pin_memory=runtime.device.type == "cuda",
    )
    mean = torch.tensor(transform.mean, device=runtime.device).view(1, -1, 1, 1) * 255
    std = torch.tensor(transform.std, device=runtime.device).view(1, -1, 1, 1) * 255
    was_training = backbone.training
    backbone.eval()
    batches: list[Tensor] = []
    try:
        with torch.inference_mode(), runtime.autocast():
            for crops in loader:
                x = (crops.to(runtime.device, non_blocking=True).float() - mean) / std
                batches.append(backbone(x.contiguous(memory_format=torch.channels_last)).float().cpu())
    finally:
        backbone.train(was_training)
    features = collectives.all_gather_rows(
        torch.cat(batches) if batches else None, len(images), runtime.device
    )
    if not bool(torch.isfinite(features).all()):
        raise UserError(
            "the backbone gives features that are not finite: its weights are damaged, or "
            f"{runtime.precision} is too narrow for it (try --hardware.precision float32)"
        )
    return features


def extract_pixels(images: Images, transform: Transform, *, workers: int = 0) -> Tensor:
    """The baseline without a network: the central crop's pixels in [0, 1], float32[N, 3 * crop * crop]."""
    loader = DataLoader(
        _CentreCrops(images, range(len(images)), transform), batch_size=256, num_workers=workers
    )
    return torch.cat([crops.float().flatten(1) / 255 for crops in loader])


class _CentreCrops(Dataset[Tensor]):
    """The central crops uint8[3, crop, crop] of the images `indices`."""

    def __init__(self, images: Images, indices: Sequence[int], transform: Transform):
        self.images, self.indices, self.transform = images, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> Tensor:
        image = self.images.image(self.indices[row])
        return centre_crop(image, self.transform.resize, self.transform.crop, self.transform.interpolation)
