"""Fashion Scenes: the embedded objects, coloured, scaled, rotated and placed on cluttered backgrounds.

A scene is a pure function of (seed, split, index): it does not depend on the order, on other scenes
or on the machine. Objects of the train split appear only in train scenes, those of the test split only in
test scenes; an object may appear in several scenes, each time in other colours, at another position and
before another background. See render.py for how scenes are made, and why raw pixels do not separate the
classes.

Legend: n scenes rendered together, S pixels a side, K objects in a scene. Images are uint8, RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.scenes.counter_rng import CounterRng
from siamtransfer.data.scenes.objects import CLASSES, OBJECT_SPLITS, read_objects, tight_box
from siamtransfer.data.scenes.render import FRAME, place_objects, render_background, render_object
from siamtransfer.utils.errors import UserError

MOST_OBJECTS = 5
LEAST_VISIBLE = 30  # per cent of an object that later ones must leave uncovered
DEFAULT_COUNTS = {"train": 10_000, "test": 2_000}

_ONE_OBJECT, _MANY_OBJECTS = 1, 2  # first word of the random numbers' key
_SCENES_AT_ONCE = 64  # rendered together; no influence on the result


@dataclass(frozen=True, eq=False)
class Scene:
    """One rendered scene; its objects are listed from the hindmost to the foremost.

    image: uint8[S,S,3]; background: the same without the objects; masks: bool[K,S,S], the visible pixels of
    each object (no pixel belongs to two); boxes: int64[K,4], x0 y0 x1 y1 tight around the mask, x1 and y1
    excluded; labels: int64[K]; objects: int64[K], indices into the split's EmbeddedObjects; visible:
    float64[K], the fraction of each object that no other covers.
    """

    image: np.ndarray
    background: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    visible: np.ndarray


def many_object_scene(split: str, index: int, size: int = 128, seed: int = 0) -> Scene:
    """Scene `index` with one to five objects, each at least LEAST_VISIBLE per cent uncovered.

    An object that would hide too much of an earlier one is left out, so every object in a scene has a label.
    """
    rng = _rng(_MANY_OBJECTS, split, np.array([index]), size, seed)
    background = render_background(rng, split, size)
    image = background.copy()
    full_masks: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    objects: list[int] = []
    for _ in range(1 + int(rng.below(MOST_OBJECTS)[0])):
        chosen = rng.below(len(read_objects(split)))
        grey, mask = place_objects(rng, split, chosen, size, smallest=260, largest=560)
        left = [earlier & ~mask[0] for earlier in masks]
        pairs = zip(left, full_masks, strict=True)
        if any(100 * visible.sum() < LEAST_VISIBLE * full.sum() for visible, full in pairs):
            continue
        render_object(rng, image, grey, mask)
        full_masks.append(mask[0])
        masks = [*left, mask[0]]
        objects.append(int(chosen[0]))
    return _build_scene(split, image[0], background[0], masks, full_masks, np.array(objects))


class FashionScenes(ArrayImages):
    """`count` one-object scenes of `size` pixels, rendered at once and kept in memory (an ImageSet).

    Scenes 0 to n-1 of a larger set are the scenes of a set of n. Without `count`: 10,000 for train, 2,000 for
    test.

    Raises:
        UserError: there is no such split, or size, count or seed is out of range.
    """

    def __init__(self, split: str = "train", size: int = 32, count: int | None = None, seed: int = 0):
        pixels = np.concatenate([images for images, _ in one_object_scenes(split, size, count, seed)])
        super().__init__("fashion-scenes", split, pixels, np.arange(len(pixels)) % len(CLASSES), CLASSES)


def one_object_scenes(
    split: str, size: int, count: int | None, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and backgrounds uint8[n,S,S,3] of `count` scenes with one object, some at a time.

    Raises:
        UserError: there is no such split, or size, count or seed is out of range.
    """
    for images, backgrounds, _, _ in one_object_layers(split, size, count, seed):
        yield images, backgrounds


def one_object_layers(
    split: str, size: int, count: int | None, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Images and backgrounds uint8[n,S,S,3], masks of the objects bool[n,S,S] and numbers int64[n] of `count`
    scenes with one object, some at a time.

    Raises:
        UserError: there is no such split, or size, count or seed is out of range.
    """
    _require_valid(split, size, seed)
    count = DEFAULT_COUNTS[split] if count is None else count
    if count < 1:
        raise UserError(f"a set of Fashion Scenes needs at least one scene, not {count}; raise the count")
    for start in range(0, count, _SCENES_AT_ONCE):
        indices = np.arange(start, min(start + _SCENES_AT_ONCE, count))
        images, backgrounds, masks, _ = _render_one(split, indices, size, seed)
        yield images, backgrounds, masks, indices


def _render_one(split: str, indices: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, ...]:
    """Images and backgrounds uint8[n,S,S,3], masks bool[n,S,S] and object indices int64[n]."""
    rng = _rng(_ONE_OBJECT, split, indices, size, seed)
    per_class = len(read_objects(split)) // len(CLASSES)
    objects = indices % len(CLASSES) * per_class + rng.below(per_class)
    background = render_background(rng, split, size)
    grey, mask = place_objects(rng, split, objects, size, smallest=500, largest=900)
    image = background.copy()
    render_object(rng, image, grey, mask)
    return image, background, mask, objects


def _rng(kind: int, split: str, indices: np.ndarray, size: int, seed: int) -> CounterRng:
    _require_valid(split, size, seed)
    return CounterRng(kind, OBJECT_SPLITS.index(split), seed, indices)


def _require_valid(split: str, size: int, seed: int) -> None:
    if split not in OBJECT_SPLITS:
        raise UserError(f"Fashion Scenes have the splits train and test, not {split!r}; choose one of them")
    if not 16 <= size <= FRAME:
        raise UserError(f"the size of Fashion Scenes is 16 to {FRAME} pixels, not {size}; choose one between")
    if not 0 <= seed < 2**63:
        raise UserError(f"the seed of Fashion Scenes is 0 to 2**63-1, not {seed}; choose one between")


def _build_scene(
    split: str,
    image: np.ndarray,
    background: np.ndarray,
    masks: list[np.ndarray],
    full_masks: list[np.ndarray],
    objects: np.ndarray,
) -> Scene:
    """The scene of visible `masks` of objects whose masks without occlusion are `full_masks`."""
    return Scene(
        image,
        background,
        masks=np.stack(masks),
        boxes=np.stack([tight_box(mask) for mask in masks]),
        labels=read_objects(split).labels[objects],
        objects=objects,
        visible=np.array([mask.sum() / full.sum() for mask, full in zip(masks, full_masks, strict=True)]),
    )
