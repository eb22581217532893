"""Mean and std of each channel of a set of images, for the normalisation of images that are not RGB."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from siamtransfer.data.first_look import evenly
from siamtransfer.data.imageset import ImageSet, channels_of
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError

MEASURED = 1024  # images, evenly taken; the mean of their means is within 3 % of a std of the set's, mostly


class ChannelStatistics(NamedTuple):
    """Of `images` images, each counted alike whatever its size: mean and std of each channel, in [0, 1] and
    to six digits, so that what is printed is what is used."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int


def measure_channels(images: ImageSet, count: int = MEASURED) -> ChannelStatistics:
    """The statistics of up to `count` images, evenly taken from the set; unreadable ones are left out.

    Raises:
        UserError: a channel has one value throughout, so that its std is 0, or no image is readable.
    """
    channels = channels_of(images)
    first, second, used = np.zeros(channels), np.zeros(channels), 0
    for index in evenly(len(images), count):
        try:
            pixels = images.image(index)
        except UnreadableImage:
            continue
        values = pixels.reshape(-1, channels).astype(np.int64)
        first += values.sum(axis=0) / len(values)
        second += np.square(values).sum(axis=0) / len(values)
        used += 1
    where = f"{images.name}/{images.split}"
    if not used:
        raise UserError(
            f"none of the images of {where} that were to be measured can be read; check the folder"
        )
    mean = first / used / 255
    std = np.sqrt(np.maximum(second / used / 255**2 - mean**2, 0))
    constant = np.flatnonzero(std < 1e-4)
    if len(constant):
        raise UserError(
            f"channel {constant[0]} (from 0) of {where} has nearly one value in the {used} images measured, "
            "so it cannot be normalised: leave it out of the files, scale it by --data.value-range, or give "
            "views.mean and views.std"
        )
    return ChannelStatistics(_six_digits(mean), _six_digits(std), used)


def _six_digits(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
