"""What kNN by a checkpoint's features is compared with: raw pixels, the untrained network, and guessing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from siamtransfer.checkpoints.read_backbone import digest_of
from siamtransfer.data.imageset import channels_of
from siamtransfer.data.registry import NAMED
from siamtransfer.evaluation.frozen_model import FrozenModel, LabelledFeatures
from siamtransfer.evaluation.knn.config import KnnConfig
from siamtransfer.features.extract import Features, pixel_transform
from siamtransfer.utils.errors import UserError

MOST_IMAGES = {"cpu": 2_000, "cuda": 20_000}
"""Images of train and test up to which the baselines are computed unasked, by the device."""


def baselines_wanted(config: KnnConfig, data: LabelledFeatures) -> bool:
    """Whether the baselines are computed: as `config.baselines` says, or where it says nothing, for sets
    of one's own and embedded ones that are small.

    Raises:
        UserError: they are asked for, and there are no images.
    """
    if data.model is None or data.images is None:
        if config.baselines:
            raise UserError("--baselines needs images: give a checkpoint and a set instead of feature files")
        return False
    if data.model.for_test is not None and channels_of(data.images[0]) != channels_of(data.images[1]):
        if config.baselines:
            raise UserError("--baselines compare images of one number of channels: leave it out")
        return False
    if config.baselines is not None:
        return config.baselines
    train, test = data.images
    entry = NAMED.get(train.name)
    own = entry is None or "bit_depth" in entry.takes or train.name.startswith("fashion-")
    most = MOST_IMAGES.get(data.model.runtime.device.type, 0)
    return own and len(train) + (len(test) if test else 0) <= most


def baseline_features(model: FrozenModel) -> Iterator[tuple[str, Features, Features | None]]:
    """(name, train, test) of `pixels` and `untrained`, without the one that the model is itself."""
    for name, other in (("pixels", _of_pixels(model)), ("untrained", untrained(model))):
        if other is not None:
            test = None if other.test is None else other.features(other.test)
            yield name, other.features(other.train), test


def guessing(train: Tensor, test: Tensor) -> dict[str, float]:
    """Top-1 in percent on labels int64[Q] of guesses by those of train, int64[N]: one class of all at random,
    and always the most frequent class."""
    classes, counts = torch.unique(train, return_counts=True)
    majority = classes[counts.argmax()]
    return {
        "baseline/chance/top1": 100 / len(classes),
        "baseline/majority/top1": 100 * float((test == majority).double().mean()),
    }


def only_one_right(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """How many of the labels int64[Q] the predictions `first` alone have right, and `second` alone."""
    right, other = first == labels, second == labels
    return int((right & ~other).sum()), int((other & ~right).sum())


def _of_pixels(model: FrozenModel) -> FrozenModel | None:
    if model.read is None:
        return None
    images = len(model.train) + (len(model.test) if model.test else 0)
    transform = pixel_transform(model.transform, images, channels_of(model.train))
    return replace(model, source="pixels", backbone=None, read=None, transform=transform)


def untrained(model: FrozenModel) -> FrozenModel | None:
    """The same network with the random weights of seed 0; None of raw pixels and of a network of random
    weights."""
    if model.read is None or model.read.format == "random":
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = model.read.architecture.build()
    state = backbone.state_dict()
    read = replace(model.read, state=state, digest=digest_of(state), format="random")
    backbone.to(model.runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return replace(model, source="untrained", backbone=backbone, read=read, witness=None)
