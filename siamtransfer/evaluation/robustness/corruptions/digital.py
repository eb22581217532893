"""What processing does to an image: contrast, saturation, elastic deformation, large pixels, JPEG.

Legend: x is float64[S, S, 3] from 0 to 1, and so is the result, before it is clipped.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from scipy import ndimage

from siamtransfer.evaluation.robustness.corruptions.severities import Numbers


def contrast(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """The distance of every value to the mean of its channel, times a factor."""
    means = x.mean(axis=(0, 1), keepdims=True)
    return np.asarray((x - means) * numbers[0] + means)


def saturate(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """The saturation of HSV times a factor, plus a number; hue and value kept. Grey has the hue of red."""
    value, least = x.max(axis=2, keepdims=True), x.min(axis=2, keepdims=True)
    saturation = (value - least) / np.where(value > 0, value, 1)
    changed = np.clip(saturation * numbers[0] + numbers[1], 0, 1)
    coloured = value - (value - x) * (changed / np.where(saturation > 0, saturation, 1))
    grey = np.concatenate([value, value * (1 - changed), value * (1 - changed)], axis=2)
    return np.where(saturation > 0, coloured, grey)


def elastic_transform(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """A random affine map, then smooth random displacements: their strength, their smoothness, and how far
    three corners of the middle move, as parts of the side."""
    side = len(x)
    strength, smoothness, reach = (side * number for number in numbers)
    grid = np.mgrid[:side, :side].astype(np.float64)
    x = _sample(x, _affine(side, reach, generator, grid), "mirror")
    right, down = (
        strength
        * ndimage.gaussian_filter(
            generator.uniform(-1, 1, (side, side)), smoothness, mode="reflect", truncate=3
        )
        for _ in range(2)
    )
    return _sample(x, grid + np.stack([down, right]), "reflect")


def pixelate(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """Reduced to a part of the side and enlarged again, both by means over boxes."""
    side = len(x)
    reduced = int(side * numbers[0])
    image = Image.fromarray(np.round(x * 255).astype(np.uint8))
    image = image.resize((reduced, reduced), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX)) / 255


def jpeg_compression(x: np.ndarray, numbers: Numbers, generator: np.random.Generator) -> np.ndarray:
    """Written as JPEG of a quality, and read again."""
    file = BytesIO()
    Image.fromarray(np.round(x * 255).astype(np.uint8)).save(file, "JPEG", quality=int(numbers[0]))
    return np.asarray(Image.open(file)) / 255


def _affine(side: int, reach: float, generator: np.random.Generator, grid: np.ndarray) -> np.ndarray:
    """float64[2, S, S]: where each pixel (row, column) of the result comes from, by the affine map that moves
    three corners of the middle third up to `reach` pixels in each direction."""
    centre, arm = float(side // 2), float(side // 3)
    corners = np.array([[centre + arm, centre + arm], [centre + arm, centre - arm], [centre - arm] * 2])
    moved = corners + generator.uniform(-reach, reach, corners.shape)
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)  # (x, y, 1) of the result -> source
    columns, rows = (grid[1] * back[0, i] + grid[0] * back[1, i] + back[2, i] for i in (0, 1))
    return np.stack([rows, columns])


def _sample(x: np.ndarray, places: np.ndarray, mode: str) -> np.ndarray:
    """x[S, S, 3] at places[2, S, S] (rows, columns), linearly."""
    return np.stack(
        [ndimage.map_coordinates(x[..., c], places, order=1, mode=mode) for c in range(x.shape[2])], axis=2
    )
