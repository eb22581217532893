"""The features of VISSL's SVM benchmarks: whole images squashed to a square, and the map of a ResNet's stage
averaged in a few windows instead of a single one (Goyal et al., arXiv 1905.01235, as released in VISSL).

Legend: N images, a stage's map [N, C, S, S].
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as pixels

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.fold_batchnorm import fold_batchnorm
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.data import ImageSet
from siamtransfer.data.imageset import content_fingerprint
from siamtransfer.evaluation.frozen_model import FrozenModel
from siamtransfer.evaluation.svm.config import Stage
from siamtransfer.utils.errors import UserError
from siamtransfer.views.view_spec import Interpolation

# Side, stride and padding of the windows on each stage's map, which for images of 224 pixels has 112, 56, 28,
# 14 and 7 a side: 9216, 9216, 8192, 9216 and 8192 features of a ResNet-50.
WINDOWS: dict[Stage, tuple[int, int, int]] = {
    "conv1": (10, 10, 4),
    "res2": (16, 8, 0),
    "res3": (13, 5, 0),
    "res4": (8, 3, 0),
    "res5": (6, 1, 0),
}


class WindowPooledBackbone(Backbone):
    """x[N, 3, H, W] -> h[N, D]: the map of one stage of a ResNet, averaged in WINDOWS and flattened, channel
    after channel. It computes with a copy of the backbone.

    Raises:
        UserError: the backbone is no ResNet of torchvision's form, or a map is smaller than a window.
    """

    def __init__(self, backbone: Backbone, stage: Stage):
        super().__init__()
        if not isinstance(backbone, ResNetBackbone):
            raise UserError(
                f"{backbone.name} has no stages as a ResNet has: take --protocol swav, which needs none"
            )
        self.name, self.width, self.stem = backbone.name, backbone.width, backbone.stem
        self.model, self.stage = fold_batchnorm(backbone), stage

    def forward(self, x: Tensor) -> Tensor:
        trunk = self.model
        if self.stage == "conv1":
            maps = trunk.relu(trunk.bn1(trunk.conv1(x)))
        else:
            maps = trunk.stages(x)[list(WINDOWS).index(self.stage) - 1]
        side, stride, padding = WINDOWS[self.stage]
        if maps.shape[3] + 2 * padding < side:
            raise UserError(
                f"{self.stage} makes a map {maps.shape[3]} pixels wide of images of {x.shape[3]}, and its "
                f"windows have {side}: take a larger --crop, an earlier --stage, or --protocol swav"
            )
        return F.avg_pool2d(maps, side, stride, padding).flatten(1)


class SquashedImages:
    """The images of a set as squares of `size` pixels, whatever their shape, as an ImageSet: the shorter side
    resized to `short` (None: not), then both sides to `size`."""

    def __init__(
        self, images: ImageSet, short: int | None, size: int, interpolation: Interpolation = "bilinear"
    ):
        self.images, self.short, self.image_size = images, short, size
        self.interpolation = InterpolationMode(interpolation)
        self.name, self.split, self.classes = images.name, images.split, images.classes
        self.labels = images.labels

    @cached_property
    def fingerprint(self) -> str:
        """The set's own fingerprint and the sizes."""
        return f"{self.images.fingerprint} {self._sizes}"

    @cached_property
    def content_fingerprint(self) -> str:
        """The same over what the set's files hold, for the feature cache."""
        return f"{content_fingerprint(self.images)} {self._sizes}"

    @property
    def _sizes(self) -> str:
        return f"{self.short} {self.image_size} {self.interpolation.value}"

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[size,size,3]; raises UnreadableImage."""
        image = torch.from_numpy(self.images.image(index)).permute(2, 0, 1)
        if self.short is not None:
            image = pixels.resize(image, [self.short], self.interpolation)
        image = pixels.resize(image, [self.image_size, self.image_size], self.interpolation)
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())

    def describe(self, index: int) -> str:
        """What the set says of image `index`, for messages."""
        return self.images.describe(index)


def pool_in_windows(model: FrozenModel, stage: Stage, short: int | None) -> FrozenModel:
    """The same model with VISSL's features: squashed images, and a stage's map averaged in windows.

    Raises:
        UserError: it has no backbone with stages.
    """
    if model.backbone is None or model.read is None:
        raise UserError("raw pixels have no stages: take --protocol swav, which needs none")
    size, interpolation = model.transform.crop, model.transform.interpolation
    train, test = (
        SquashedImages(images, short, size, interpolation) if images else None
        for images in (model.train, model.test)
    )
    assert train is not None
    return replace(
        model,
        backbone=WindowPooledBackbone(model.backbone, stage),
        read=replace(model.read, digest=f"{model.read.digest} {stage} in windows"),
        train=train,
        test=test,
        transform=replace(model.transform, resize=None),
    )
