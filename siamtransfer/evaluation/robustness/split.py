"""What the head is fitted to and scored on first: train, and the test split or a part of train instead."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from siamtransfer.data import ImageSet
from siamtransfer.data.subset import Subset
from siamtransfer.evaluation.frozen_model import FrozenModel
from siamtransfer.evaluation.linear.logistic import split_by_class
from siamtransfer.evaluation.linear.splits import TEST_FRACTION, single_labels
from siamtransfer.features.extract import Features


@dataclass(frozen=True)
class CleanSplit:
    """Features of train and of the images of the test split, as they are.

    Attributes:
        images: those of `test`.
        protocol: what the record says where they are a part of train.
    """

    train: Features
    test: Features
    images: ImageSet
    protocol: dict[str, Any] = field(default_factory=dict)


def clean_split(model: FrozenModel, seed: int) -> CleanSplit:
    """The features of both; without a test split, a fifth of every class of train becomes one, by `seed`.

    Raises:
        UserError: the images have several labels each, or whatever extraction finds.
    """
    labels, layers = single_labels(model.train), [model.config.layers]
    train = model.features(model.train, layers)
    if model.test is not None:
        return CleanSplit(train, model.features(model.test, layers), model.test)
    rest, held = split_by_class(labels, TEST_FRACTION, seed)
    images = Subset(model.train, held.numpy())
    return CleanSplit(
        Features(train.tensor[rest], labels[rest]),
        Features(train.tensor[held], labels[held]),
        images,
        {"test": f"{TEST_FRACTION:.0%} of train", "test_images": len(held), "train_images": len(rest)},
    )
