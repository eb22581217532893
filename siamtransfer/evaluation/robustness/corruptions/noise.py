"""Noise of four kinds, added to every value of a pixel on its own.

Legend: x is float64[S, S, 3] from 0 to 1, and so is the result, before it is clipped.
"""

from __future__ import annotations

import numpy as np

from siamtransfer.evaluation.robustness.corruptions.severities import Numbers


def gaussian_noise(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """Normal noise of a deviation."""
    return x + generator.normal(0.0, numbers[0], x.shape)


def shot_noise(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """Poisson counts of a light that white makes so many of."""
    photons = numbers[0]
    return generator.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """A share of all values becomes 0 or 1, each half of the time."""
    hit = generator.uniform(size=x.shape) <= numbers[0]
    white = generator.uniform(size=x.shape) <= 0.5
    return np.where(hit, white, x)


def speckle_noise(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """Normal noise in proportion to the value, of a deviation."""
    return x + x * generator.normal(0.0, numbers[0], x.shape)
