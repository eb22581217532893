"""Blurs of five kinds: out of focus, by frosted glass, by motion, by zoom, and Gaussian.

Legend: x is float64[S, S, 3] from 0 to 1, and so is the result.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage, signal

from siamtransfer.evaluation.robustness.corruptions.severities import Numbers


def gaussian_blur(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """By a deviation in pixels."""
    return _gaussian(x, numbers[0])


def defocus_blur(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """By a disk of a radius, whose edge is smoothed by a Gaussian of a deviation, both in pixels."""
    kernel = disk(*numbers)
    side = len(kernel) // 2
    padded = np.pad(x, ((side, side), (side, side), (0, 0)), mode="reflect")
    blurred: np.ndarray = signal.fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return blurred


def glass_blur(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """Blurred, pixels displaced at random, and blurred again: a deviation, the farthest displacement and the
    number of rounds."""
    sigma, reach, rounds = numbers[0], int(numbers[1]), int(numbers[2])
    pixels = (_gaussian(x, sigma) * 255).astype(np.uint8)
    inner = len(x) - 2 * reach
    for _ in range(rounds):
        offsets = generator.integers(-reach, reach, size=(inner * inner, 2))
        pixels = displace(pixels, offsets, reach)
    return _gaussian(pixels / 255, sigma)


def motion_blur(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """Along a line at a random angle up to 45° from the horizontal: the radius of the kernel, and its
    deviation."""
    blurred = blur_along(x, numbers[0], numbers[1], generator.uniform(-45, 45))
    return np.round(blurred * 255) / 255  # as a file of eight bits, which ImageMagick wrote


def zoom_blur(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """The mean of the image and of its enlargements from 1 up to a factor, by steps of another number."""
    factors = np.arange(1, *numbers)
    narrow = x.astype(np.float32)
    total = narrow + sum(enlarge(narrow, factor) for factor in factors)
    return np.asarray(total / (len(factors) + 1), np.float64)


def disk(radius: float, smoothing: float) -> np.ndarray:
    """float64[K, K], of sum one but for the smoothing of its border: the kernel of `defocus_blur`."""
    reach, smoothed = (8, 3) if radius <= 8 else (int(radius), 5)
    steps = np.arange(-reach, reach + 1)
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float64)
    weights = np.exp(-(np.arange(-(smoothed // 2), smoothed // 2 + 1) ** 2) / (2 * smoothing**2))
    weights /= weights.sum()
    kernel = inside / inside.sum()
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, weights, axis=axis, mode="mirror")
    return kernel


def displace(pixels: np.ndarray, offsets: np.ndarray, reach: int) -> np.ndarray:
    """One round of `glass_blur` on uint8[S, S, C]: from the last pixel to the first, each becomes a copy of
    the pixel at its `offsets` int64[n, 2] (right, down), as that is by then.

    The authors' code means to swap two pixels. Its two sides are views of one array, so the second assignment
    changes nothing, and the published images are made by copies. A margin of `reach` pixels stays.
    """
    side = len(pixels)
    rows = np.arange(side - reach, reach, -1)
    own = (rows[:, None] * side + rows).ravel()
    source = own + offsets[:, 1] * side + offsets[:, 0]
    taken, link = np.arange(side * side), np.arange(side * side)
    taken[own] = source
    moved = np.zeros(side * side, bool)
    moved[own] = True
    done_before = moved[source] & (source > own)  # those pixels have their new values already
    link[own[done_before]] = source[done_before]
    while not np.array_equal(link, link[link]):  # twice as far along the chains of copies
        link = link[link]
    flat = pixels.reshape(side * side, -1)
    return flat[taken[link]].reshape(pixels.shape)


def blur_along(x: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """x float[S, S, C] by a kernel to one side along a line, in degrees, as ImageMagick's motion blur: half a
    Gaussian on whole pixels, whose values beyond the border are those at it."""
    width, side = 2 * math.ceil(radius) + 1, len(x)
    kernel = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    slope = np.deg2rad(angle)
    blurred = np.zeros(x.shape)
    for step, weight in enumerate(kernel):
        right, down = (math.ceil(step * part - 0.5) for part in (math.cos(slope), math.sin(slope)))
        rows, columns = (np.clip(np.arange(side) + move, 0, side - 1) for move in (down, right))
        blurred += weight * x[rows[:, None], columns]
    return blurred


def enlarge(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of x float[S, S, C], linearly enlarged by a factor to the size of x."""
    side = len(x)
    part = math.ceil(side / factor)
    top = (side - part) // 2
    large = ndimage.zoom(x[top : top + part, top : top + part], (factor, factor, 1), order=1)
    trim = (len(large) - side) // 2
    result: np.ndarray = large[trim : trim + side, trim : trim + side]
    return result


def _gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    blurred: np.ndarray = ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4)
    return blurred
