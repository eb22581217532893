"""A corrupted version of a set of images, made of the crops that the network sees."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property

import numpy as np

from siamtransfer.data.imageset import ImageSet, channels_of, content_fingerprint
from siamtransfer.evaluation.robustness.corruptions.corrupt import corrupt, generator_of
from siamtransfer.evaluation.robustness.corruptions.severities import LEAST_SIDE, numbers_of
from siamtransfer.features.extract import Transform
from siamtransfer.utils.errors import UserError
from siamtransfer.views.crop import centre_crop

VERSION = 1
"""Of the corruptions; a part of the key of kept features."""


class CorruptedImages:
    """The crops of `images` by `transform`, corrupted, as an ImageSet of squares.

    The chance in a version belongs to the seed, the place of the image in the set, the corruption and the
    severity. So it is the same for every backbone, batch and number of processes.

    Raises:
        UserError: the images are not of three channels, or the crop is too small.
    """

    def __init__(self, images: ImageSet, transform: Transform, corruption: str, severity: int, seed: int = 0):
        if channels_of(images) != 3:
            raise UserError(
                f"corruptions are of images of three channels, and those of {images.name} have "
                f"{channels_of(images)}: say --corruptions none"
            )
        if transform.crop < LEAST_SIDE:
            raise UserError(
                f"corruptions are of images of at least {LEAST_SIDE} pixels a side, and the network sees "
                f"{transform.crop}: say --corruptions none, or --crop {LEAST_SIDE}"
            )
        self.images, self.transform = images, transform
        self.corruption, self.severity, self.seed = corruption, severity, seed
        self.name, self.split = images.name, f"{images.split}, {corruption} {severity}"
        self.classes, self.labels = images.classes, images.labels
        self.image_size = transform.crop

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprint of `images` and what is done to them."""
        return self._digest(self.images.fingerprint)

    @cached_property
    def content_fingerprint(self) -> str:
        """SHA-256 over that of `images` and what is done to them."""
        return self._digest(content_fingerprint(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        """The corrupted crop of image `index`, uint8[crop, crop, 3]; raises UnreadableImage."""
        transform = self.transform
        crop = centre_crop(
            self.images.image(index), transform.resize, transform.crop, transform.interpolation
        )
        generator = generator_of(index, self.corruption, self.severity, self.seed)
        return corrupt(crop.permute(1, 2, 0).numpy(), self.corruption, self.severity, generator)

    def describe(self, index: int) -> str:
        """As `images` describes it."""
        return self.images.describe(index)

    def _digest(self, images: str) -> str:
        done = [
            *(VERSION, images, self.corruption, self.severity, self.seed),
            numbers_of(self.corruption, self.severity, self.transform.crop),
            {key: value for key, value in asdict(self.transform).items() if key not in ("mean", "std")},
        ]
        return hashlib.sha256(json.dumps(done, sort_keys=True).encode()).hexdigest()
