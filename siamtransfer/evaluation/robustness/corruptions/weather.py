"""Snow, fog and brightness. Frost is laid over images from six photographs, which are not in this package.

Legend: x is float64[S, S, 3] from 0 to 1, and so is the result, before it is clipped.
"""

from __future__ import annotations

import numpy as np

from siamtransfer.evaluation.robustness.corruptions.blur import blur_along, enlarge
from siamtransfer.evaluation.robustness.corruptions.severities import Numbers

LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue in the grey of ITU-R BT.601


def snow(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """Flakes: normal noise (mean, deviation) enlarged by a factor, without what lies below a threshold,
    blurred by motion (radius, deviation) downwards; laid over an image that is whitened but for a share."""
    mean, deviation, factor, threshold, radius, sigma, share = numbers
    flakes = enlarge(generator.normal(mean, deviation, x.shape[:2])[..., None], factor)
    flakes = np.where(flakes < threshold, 0, flakes)
    eight_bits = (np.clip(flakes, 0, 1) * 255).astype(np.uint8)
    flakes = np.round(blur_along(eight_bits, radius, sigma, generator.uniform(-135, -45))) / 255
    white = np.maximum(x, (x @ LUMA)[..., None] * 1.5 + 0.5)
    return share * x + (1 - share) * white + flakes + np.rot90(flakes, k=2)


def fog(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """A plasma fractal of a strength and a smoothness, added, and the sum scaled back to the brightest value
    of the image."""
    strength, decay = numbers
    side, brightest = len(x), x.max()
    cloud = plasma(1 << (side - 1).bit_length(), decay, generator)[:side, :side, None]
    return (x + strength * cloud) * brightest / (brightest + strength)


def brightness(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """The value of HSV raised by a number, hue and saturation kept."""
    value = x.max(axis=2, keepdims=True)
    raised = np.clip(value + numbers[0], 0, 1)
    return np.where(value > 0, x * (raised / np.where(value > 0, value, 1)), raised)


def plasma(side: int, decay: float, generator: np.random.Generator) -> np.ndarray:
    """float64[side, side] from 0 to 1 on a torus, by diamond-square; `side` is a power of two.

    From coarse to fine, the centre of every square is the mean of its corners plus a deviation, then that of
    every diamond likewise. The deviation is uniform, its reach the square of a number that begins at 100 and
    is divided by `decay` at each halving.
    """
    field, wibble, step = np.zeros((side, side)), 100.0, side
    while step >= 2:
        half = step // 2

        def mean_of(total: np.ndarray, reach: float = wibble) -> np.ndarray:
            return total / 4 + reach * generator.uniform(-reach, reach, total.shape)

        corners = field[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        field[half::step, half::step] = mean_of(pairs + np.roll(pairs, -1, axis=1))
        centres = field[half::step, half::step]
        beside = centres + np.roll(centres, 1, axis=0), corners + np.roll(corners, -1, axis=1)
        field[::step, half::step] = mean_of(beside[0] + beside[1])
        above = centres + np.roll(centres, 1, axis=1), corners + np.roll(corners, -1, axis=0)
        field[half::step, ::step] = mean_of(above[0] + above[1])
        step, wibble = half, wibble / decay
    field -= field.min()
    return field / field.max()
