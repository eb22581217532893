"""A corrupted version of an image, by the name of the corruption and a severity."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from siamtransfer.evaluation.robustness.corruptions.blur import (
    defocus_blur,
    gaussian_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
)
from siamtransfer.evaluation.robustness.corruptions.digital import (
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from siamtransfer.evaluation.robustness.corruptions.noise import (
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)
from siamtransfer.evaluation.robustness.corruptions.severities import Numbers, numbers_of
from siamtransfer.evaluation.robustness.corruptions.weather import brightness, fog, snow

Corruption = Callable[[np.ndarray, Numbers, np.random.Generator], np.ndarray]

CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        *(gaussian_noise, shot_noise, impulse_noise, speckle_noise),
        *(defocus_blur, glass_blur, motion_blur, zoom_blur, gaussian_blur),
        *(snow, fog, brightness),
        *(contrast, saturate, elastic_transform, pixelate, jpeg_compression),
    )
}
"""By name."""


def corrupt(image: np.ndarray, name: str, severity: int, generator: np.random.Generator) -> np.ndarray:
    """A corrupted version of a square image, both uint8[S, S, 3]; values are rounded down, as published.

    Args:
        name: one of CORRUPTIONS.
        severity: 1 to 5.
        generator: of what is random; see `generator_of`.
    """
    x = CORRUPTIONS[name](image / 255, numbers_of(name, severity, len(image)), generator)
    return (np.clip(x, 0, 1) * 255 + ROUNDING).astype(np.uint8)


def generator_of(index: int, name: str, severity: int, seed: int = 0) -> np.random.Generator:
    """The random numbers of image `index` of a set: the same whoever asks, and in whatever order."""
    return np.random.default_rng([seed, index, zlib.crc32(name.encode()), severity])


ROUNDING = 1e-9
"""So that a value that was k / 255 is k again, and not below."""
