"""Pairs of Fashion Scenes: one scene for two cameras, and one scene at two times.

The first column is that of `FashionScenes`, to the byte, so a network that learned from pairs is scored on
the same images as one that did not.

Legend: n scenes rendered together, S pixels a side.
"""

from __future__ import annotations

import numpy as np

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.pairs import PairImages
from siamtransfer.data.scenes.counter_rng import CounterRng
from siamtransfer.data.scenes.hidden import LUMINANCE_WEIGHTS
from siamtransfer.data.scenes.objects import CLASSES, OBJECT_SPLITS, tight_box
from siamtransfer.data.scenes.scenes import FashionScenes, one_object_layers
from siamtransfer.data.scenes.videos import STEP, turned_back

CAMERAS = ("colour", "infrared")
TIMES = ("frame", "later")
_STEPS = 4  # first word of the random numbers' key


def scene_cameras(
    split: str = "train", size: int = 32, count: int | None = None, seed: int = 0
) -> PairImages:
    """Scenes in colour, and the same scenes as a camera for warmth might see them: one channel, 255 minus the
    luminance, so that what is dark in one is bright in the other.

    Raises:
        UserError: see `FashionScenes`.
    """
    colour = FashionScenes(split, size, count, seed)
    luminance = (colour.pixels.astype(np.int32) @ LUMINANCE_WEIGHTS >> 8).astype(np.uint8)
    return _pairs("fashion-pairs", colour, 255 - luminance, CAMERAS)


def scene_frames(
    split: str = "train", size: int = 32, count: int | None = None, seed: int = 0, gap: int = 1
) -> PairImages:
    """Scenes, and the same scenes `gap` frames later: the object has moved over the still background, in each
    direction by up to STEP per cent of the frame at a time, and turned back at the borders. A gap of 0 gives
    the same images twice.

    Raises:
        UserError: see `FashionScenes`.
    """
    now = FashionScenes(split, size, count, seed)
    later = np.concatenate(
        [
            _moved(images, backgrounds, masks, indices, split=split, seed=seed, gap=gap)
            for images, backgrounds, masks, indices in one_object_layers(split, size, count, seed)
        ]
    )
    return _pairs("fashion-frames", now, later, TIMES)


def _moved(
    images: np.ndarray,
    backgrounds: np.ndarray,
    masks: np.ndarray,
    indices: np.ndarray,
    *,
    split: str,
    seed: int,
    gap: int,
) -> np.ndarray:
    """uint8[n,S,S,3]: the scenes after `gap` frames. The steps of a scene do not depend on the gap."""
    rng = CounterRng(_STEPS, OBJECT_SPLITS.index(split), seed, indices)
    size = images.shape[1]
    across, down = (size * STEP / 100 * rng.between(-256, 256) / 256 for _ in range(2))
    moved = backgrounds.copy()
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        left, top, right, bottom = tight_box(mask).tolist()
        shift = (
            turned_back(float(down[number]) * gap, -top, size - bottom),
            turned_back(float(across[number]) * gap, -left, size - right),
        )
        there = np.roll(mask, shift, (0, 1))
        moved[number][there] = np.roll(image, shift, (0, 1))[there]
    return moved


def _pairs(name: str, first: FashionScenes, second: np.ndarray, columns: tuple[str, str]) -> PairImages:
    sets = [
        ArrayImages(f"{name}:{column}", first.split, pixels, first.labels, CLASSES)
        for column, pixels in zip(columns, (first.pixels, second), strict=True)
    ]
    return PairImages(name, first.split, sets, columns)
