"""The networks whose features are followed: the checkpoint's, the same one untrained, and raw pixels.

Legend: N images of the bank, n of the queries, D features, b crops of S x S pixels in C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.backbones.feature_layers import FeatureLayers
from siamtransfer.data import ImageSet
from siamtransfer.data.imageset import channels_of
from siamtransfer.data.subset import Subset
from siamtransfer.evaluation.frozen_model import FrozenModel
from siamtransfer.evaluation.knn.baselines import untrained
from siamtransfer.evaluation.linear.logistic import split_by_class
from siamtransfer.evaluation.linear.splits import TEST_FRACTION, single_labels
from siamtransfer.features.extract import PIXEL_SIDE, Features, extract, forward_of

PIXELS, UNTRAINED = "pixels", "untrained"
BASELINES = (PIXELS, UNTRAINED)


@dataclass(frozen=True)
class Parts:
    """The images that are measured.

    Attributes:
        bank: those among which neighbours are searched.
        queries: those that are transformed.
        places: int64[n], the places of the queries in the set that they were drawn from.
        split: name and split of that set, or the part of train that stands for one.
    """

    bank: ImageSet
    queries: ImageSet
    places: np.ndarray
    split: str


@dataclass(frozen=True)
class Subject:
    """A network, and its features of images as they are.

    Attributes:
        name: empty for the checkpoint, else one of BASELINES.
        bank: float32[N, D] with labels.
        queries: float32[n, D] with labels.
        forward: the features float32[b, D], on the CPU, of crops uint8[b, C, S, S].
    """

    name: str
    bank: Features
    queries: Features
    forward: Callable[[Tensor], Tensor]


def draw_parts(model: FrozenModel, images: int, bank: int, seed: int) -> Parts:
    """So many test and train images, drawn by the seed, 0 for all; without a test split a fifth of every
    class of train is one.

    Raises:
        UserError: the images have several labels each, or no class has two.
    """
    labels = single_labels(model.train)
    if model.test is not None:
        train, places = np.arange(len(model.train)), np.arange(len(model.test))
        source, split = model.test, f"{model.test.name}/{model.test.split}"
    else:
        train, places = (rows.numpy() for rows in split_by_class(labels, TEST_FRACTION, seed))
        source, split = model.train, f"{TEST_FRACTION:.0%} of train"
    places = places[_drawn(len(places), images, seed)]
    return Parts(
        Subset(model.train, train[_drawn(len(train), bank, seed)]), Subset(source, places), places, split
    )


def open_subjects(model: FrozenModel, parts: Parts) -> list[Subject]:
    """The checkpoint first, then raw pixels and the untrained network, without the one that the checkpoint is
    itself.

    Raises:
        UserError: a feature is not finite.
        UnreadableImage: an image cannot be read.
    """
    if model.backbone is None:
        return [_pixels(model, parts, "")]
    subjects = [_network(model, parts, ""), _pixels(model, parts, PIXELS)]
    random = untrained(model)
    return subjects if random is None else [*subjects, _network(random, parts, UNTRAINED)]


def _network(model: FrozenModel, parts: Parts, name: str) -> Subject:
    layers = [model.config.layers]
    bank, queries = (model.features(images, layers) for images in (parts.bank, parts.queries))
    assert model.backbone is not None
    network = model.prepared(FeatureLayers(model.backbone, layers)).eval()
    compute = forward_of(network, model.transform, model.runtime)

    def forward(crops: Tensor) -> Tensor:
        with torch.inference_mode(), model.runtime.autocast():
            return compute(crops)

    return Subject(name, bank, queries, forward)


def _pixels(model: FrozenModel, parts: Parts, name: str) -> Subject:
    """Raw pixels of the crops that the network sees."""
    channels = channels_of(parts.queries)
    transform = replace(model.transform, mean=(0.0,) * channels, std=(1.0,) * channels)
    network = PixelFeatures().eval()
    features = [
        Features(
            extract(
                network,
                images,
                transform,
                model.runtime,
                batch=model.config.forward_batch_size,
                workers=model.workers,
            ),
            single_labels(images),
        )
        for images in (parts.bank, parts.queries)
    ]
    compute = forward_of(network, transform, model.runtime)

    def forward(crops: Tensor) -> Tensor:
        with torch.inference_mode():
            return compute(crops)

    bank, queries = features
    return Subject(name, bank, queries, forward)


class PixelFeatures(nn.Module):
    """x[b, C, S, S] -> its values, of larger images those of one of PIXEL_SIDE pixels a side."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > PIXEL_SIDE:
            size = (PIXEL_SIDE, PIXEL_SIDE)
            x = functional.interpolate(x.float(), size=size, mode="bilinear", antialias=True)
        return x.flatten(1)


def _drawn(count: int, size: int, seed: int) -> np.ndarray:
    """int64: `size` of `count` rows by the seed, rising; 0: all."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(count)
    return np.sort(order[: size or count])
