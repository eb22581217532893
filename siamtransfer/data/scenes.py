"""Fashion Scenes: the embedded objects, coloured, scaled, turned and placed on cluttered backgrounds.

A scene is a pure function of (seed, split, index): its random numbers come from a counter hash, never from a
stream, and all arithmetic is on integers, so that every machine, order and batch gives the same bytes. Lengths
are in units of 1/1024 of the frame, so one scene keeps its layout at every size. Objects of the train split
appear only in train scenes, those of the test split only in test scenes.

Colours, position, scale and background tell nothing about the class: only the object's form and its inner
structure do. The clutter is cut from shuffled pieces of other objects, so that cloth texture and edges are
found behind the object as well as on it.

Legend: n scenes rendered together, S pixels a side, K objects in a scene. Images are uint8, RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.objects import CLASSES, OBJECT_SIZE, OBJECT_SPLITS, object_silhouettes, read_objects
from siamtransfer.errors import UserError

FRAME = 1024  # the side of a scene in its own units
TOGETHER = 64  # scenes rendered in one go; no influence on the result
MOST_OBJECTS = 5
LEAST_VISIBLE = 30  # per cent of an object that later ones must leave uncovered

_ONE, _MANY, _SHUFFLE = 1, 2, 3  # kinds of random numbers
_PIECE = 7  # side in pixels of the pieces into which objects are cut for the clutter
_PADDED = OBJECT_SIZE + 2
_COVER = 1 << 20  # the mask's bit in a packed pixel: above 1024 * 255, the largest sum of weighted grey values


class Dice:
    """Independent random integers for n keys, each number a hash of (key, how many were drawn before).

    The hash is splitmix64's finaliser (Steele, Lea and Flood, OOPSLA 2014), whose output, unlike that of
    numpy's distributions, no release of a library can change.
    """

    def __init__(self, *key: int | np.ndarray):
        state = np.zeros(1, np.uint64)
        for part in key:
            state = _mix(state ^ np.asarray(part).astype(np.uint64))
        self._state, self._drawn = state, 0

    def below(self, bound: int | np.ndarray, *shape: int) -> np.ndarray:
        """int64[n, *shape], uniform over 0 .. bound-1; `bound` broadcasts and is at most 2**31."""
        count = int(np.prod(shape, dtype=np.int64))
        counter = np.arange(self._drawn + 1, self._drawn + count + 1, dtype=np.uint64)
        self._drawn += count
        bits = _mix(self._state[:, None] + counter * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
        return (bits.astype(np.int64).reshape(-1, *shape) * bound) >> 31

    def between(self, low: int | np.ndarray, high: int | np.ndarray, *shape: int) -> np.ndarray:
        """int64[n, *shape], uniform over low .. high, both included."""
        return low + self.below(high - low + 1, *shape)


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True, eq=False)
class Scene:
    """One rendered scene; objects are listed from the hindmost to the foremost.

    image: uint8[S,S,3]; background: the same without the objects; masks: bool[K,S,S], the visible pixels of each object (disjoint);
    boxes: int64[K,4], x0 y0 x1 y1 tight around the mask, x1 and y1 excluded; labels: int64[K];
    objects: int64[K], indices into the split's Objects; visible: float64[K], uncovered share of the object.
    """

    image: np.ndarray
    background: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    visible: np.ndarray


def one_object_scene(split: str, index: int, size: int = 32, seed: int = 0) -> Scene:
    """Scene `index` with one object that fills most of the frame; its class is index modulo ten."""
    image, background, masks, objects = _render_one(split, np.array([index]), size, seed)
    return _as_scene(split, image[0], background[0], masks, masks, objects)


def many_object_scene(split: str, index: int, size: int = 128, seed: int = 0) -> Scene:
    """Scene `index` with one to five objects, each at least LEAST_VISIBLE per cent uncovered."""
    image, background, wholes, objects = _render_many(split, np.array([index]), size, seed)
    covered = np.zeros((size, size), bool)
    masks = []
    for whole in wholes[::-1]:
        masks.append(whole & ~covered)
        covered |= whole
    return _as_scene(split, image, background, np.stack(masks[::-1]), wholes, objects)


class FashionScenes(ArrayImages):
    """`count` one-object scenes of `size` pixels, rendered once and then kept in memory (an ImageSet)."""

    def __init__(self, split: str = "train", size: int = 32, count: int | None = None, seed: int = 0):
        _require_valid(split, size, seed)
        count = (10_000 if split == "train" else 2_000) if count is None else count
        if count < 1:
            raise UserError(f"a set of Fashion Scenes needs at least one scene, not {count}; raise the count")
        pixels = np.empty((count, size, size, 3), np.uint8)
        for start in range(0, count, TOGETHER):
            indices = np.arange(start, min(start + TOGETHER, count))
            pixels[indices] = _render_one(split, indices, size, seed)[0]
        super().__init__("fashion-scenes", split, pixels, np.arange(count) % len(CLASSES), CLASSES)


def _as_scene(split: str, image: np.ndarray, background: np.ndarray, masks: np.ndarray, wholes: np.ndarray,
              objects: np.ndarray) -> Scene:  # fmt: skip
    boxes = np.stack([tight_box(mask) for mask in masks])
    visible = masks.sum((1, 2)) / wholes.sum((1, 2))
    return Scene(image, background, masks, boxes, read_objects(split).labels[objects], objects, visible)


def tight_box(mask: np.ndarray) -> np.ndarray:
    """int64[4]: x0 y0 x1 y1 of the smallest box around a mask bool[H,W] that is not empty; x1, y1 excluded."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def _require_valid(split: str, size: int, seed: int) -> None:
    if split not in OBJECT_SPLITS:
        raise UserError(f"Fashion Scenes have the splits train and test, not {split!r}; choose one of them")
    if not 16 <= size <= FRAME:
        raise UserError(f"the size of Fashion Scenes is 16 to {FRAME} pixels, not {size}; choose one between")
    if not 0 <= seed < 2**63:
        raise UserError(f"the seed of Fashion Scenes is 0 to 2**63-1, not {seed}; choose one between")


def _dice(kind: int, split: str, seed: int, indices: np.ndarray) -> Dice:
    return Dice(kind, OBJECT_SPLITS.index(split), seed, indices)


def _render_one(split: str, indices: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, ...]:
    """Images and backgrounds uint8[n,S,S,3], masks bool[n,S,S] and object indices int64[n]."""
    _require_valid(split, size, seed)
    dice = _dice(_ONE, split, seed, indices)
    per_class = len(read_objects(split)) // len(CLASSES)
    objects = indices % len(CLASSES) * per_class + dice.below(per_class)
    background = _paint_background(dice, split, size)
    grey, masks = _place(dice, split, objects, size, smallest=620, largest=960)
    image = background.copy()
    _paint_object(dice, image, grey, masks)
    return image, background, masks, objects


def _render_many(split: str, index: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, ...]:
    """Image and background uint8[S,S,3], whole (uncovered) masks bool[K,S,S] and object indices int64[K].

    An object that would hide too much of an earlier one is left out, so that nothing in a scene is unlabelled.
    """
    _require_valid(split, size, seed)
    dice = _dice(_MANY, split, seed, index)
    background = _paint_background(dice, split, size)
    image = background.copy()
    wanted = 1 + int(dice.below(MOST_OBJECTS)[0])
    wholes: list[np.ndarray] = []
    visible: list[np.ndarray] = []
    objects: list[int] = []
    for _ in range(wanted):
        chosen = dice.below(len(read_objects(split)))
        grey, masks = _place(dice, split, chosen, size, smallest=260, largest=560)
        left = [mask & ~masks[0] for mask in visible]
        if any(100 * now.sum() < LEAST_VISIBLE * whole.sum() for now, whole in zip(left, wholes, strict=True)):
            continue
        _paint_object(dice, image, grey, masks)
        wholes.append(masks[0])
        visible = [*left, masks[0]]
        objects.append(int(chosen[0]))
    return image[0], background[0], np.stack(wholes), np.array(objects)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x int32[1,1,S] and y int32[1,S,1]: the centres of the pixels in units of the frame."""
    centres = ((2 * np.arange(size, dtype=np.int32) + 1) * (FRAME // 2)) // size
    return centres[None, None, :], centres[None, :, None]


def _spread(values: np.ndarray) -> np.ndarray:
    """int64[n] as int32[n,1,1], to meet the grid."""
    return values.astype(np.int32)[:, None, None]


def _paint_background(dice: Dice, split: str, size: int) -> np.ndarray:
    """uint8[n,S,S,3]: a gradient, stripes across a part of it, blobs, and shuffled pieces of objects."""
    x, y = _grid(size)
    slope_x, slope_y = (_spread(dice.between(-96, 96)) for _ in range(2))
    shade = (((x - FRAME // 2) * slope_x + (y - FRAME // 2) * slope_y) >> 9) + 128
    canvas = _blend(dice.below(256, 3), dice.below(256, 3), np.clip(shade, 0, 255))

    across_x, across_y = (_spread(dice.between(-16, 16)) for _ in range(2))
    period = _spread(dice.between(60, 360))
    phase = ((x * across_x + y * across_y) >> 4) + _spread(dice.below(FRAME))
    side = (x - FRAME // 2) * _spread(dice.between(-8, 8)) + (y - FRAME // 2) * _spread(dice.between(-8, 8))
    _fill(canvas, (phase % period * 2 < period) & (side > 0), dice.below(256, 3))

    for _ in range(3):
        centre_x, centre_y = (_spread(dice.below(FRAME)) for _ in range(2))
        wide, high = (_spread(dice.between(60, 240)) for _ in range(2))
        # Halved twice to stay inside int32: (1024 >> 2)**2 * 240**2 would not fit, hence the common scale.
        inside = ((x - centre_x) * 64 // wide) ** 2 + ((y - centre_y) * 64 // high) ** 2 < 64**2
        _fill(canvas, inside, dice.below(256, 3))

    pieces = _shuffled_pieces(split)
    for _ in range(4):
        wide, high = (dice.between(250, 650) for _ in range(2))
        left = _spread(dice.between(-wide // 2, FRAME - wide // 2))
        top = _spread(dice.between(-high // 2, FRAME - high // 2))
        column = (x - left) * OBJECT_SIZE // _spread(wide)
        row = (y - top) * OBJECT_SIZE // _spread(high)
        inside = (column >= 0) & (column < OBJECT_SIZE) & (row >= 0) & (row < OBJECT_SIZE)
        source = _spread(dice.below(len(pieces))) * OBJECT_SIZE**2 + row * OBJECT_SIZE + column
        grey = pieces.ravel()[np.where(inside, source, 0)]
        cloth = inside & (grey > 0)
        colours = _blend(dice.below(256, 3), dice.below(256, 3), grey)
        np.copyto(canvas, colours, where=cloth[..., None])
    return canvas


def _fill(canvas: np.ndarray, where: np.ndarray, colours: np.ndarray) -> None:
    np.copyto(canvas, colours.astype(np.uint8)[:, None, None, :], where=where[..., None])


def _blend(dark: np.ndarray, bright: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """uint8[n,S,S,3]: grey[n,S,S] from 0 to 255 mapped onto the line from colour dark[n,3] to bright[n,3]."""
    step = np.arange(256)
    ramp = (dark[:, None] * (255 - step[:, None]) + bright[:, None] * step[:, None] + 127) // 255
    return ramp.astype(np.uint8)[np.arange(len(ramp))[:, None, None], grey]


def _place(dice: Dice, split: str, objects: np.ndarray, size: int, *, smallest: int,
           largest: int) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Samples objects[n] at a random scale, stretch, turn, side and place inside the frame.

    Returns the grey values int32[n,S,S] (bilinear, the object's own pixels only) and the masks bool[n,S,S]
    (where at least half of the pixel's weight lies on the silhouette).
    """
    extent = _extents(split)[objects]  # left, top, width, height in object pixels
    left, top, width, height = extent.T
    long_side = np.maximum(width, height)
    # Frame units per object pixel, times 256; the stretch makes one axis up to an eighth shorter.
    zoom = dice.between(smallest, largest) * 256 // long_side
    stretch = dice.between(-32, 32)
    zoom_x, zoom_y = zoom * (256 - np.maximum(stretch, 0)) >> 8, zoom * (256 + np.minimum(stretch, 0)) >> 8
    flip = 1 - 2 * dice.below(2)

    # A turn of up to 2 atan(1/8) = 14 degrees, its sine and cosine rational in t: no libm, no rounding doubts.
    t = dice.between(-128, 128)
    cosine, sine = ((1 << 20) - t * t) * 4096 // ((1 << 20) + t * t), 2 * t * 1024 * 4096 // ((1 << 20) + t * t)

    half_x = (width * zoom_x * cosine + height * zoom_y * abs(sine)) >> 21
    half_y = (height * zoom_y * cosine + width * zoom_x * abs(sine)) >> 21
    # A turned object can be a little longer than the frame; it is then centred, and its ends are cut.
    slack_x, slack_y = (np.maximum(FRAME // 2 - half, 0) for half in (half_x, half_y))
    centre_x, centre_y = (FRAME // 2 + dice.between(-slack, slack) for slack in (slack_x, slack_y))

    x, y = _grid(size)
    away_x, away_y = x - _spread(centre_x), y - _spread(centre_y)
    # From frame units back to object pixels in 1/4096, hence << 8 for zoom's 256.
    per_x, per_y = (1 << 20) // zoom_x * flip, (1 << 20) // zoom_y
    source_x = (away_x * _spread(cosine * per_x >> 12) + away_y * _spread(sine * per_x >> 12)) + _spread(
        (2 * left + width) * 2048
    )
    source_y = (away_y * _spread(cosine * per_y >> 12) - away_x * _spread(sine * per_y >> 12)) + _spread(
        (2 * top + height) * 2048
    )
    return _sample(_packed_objects(split), objects, source_x, source_y)


def _sample(bank: np.ndarray, objects: np.ndarray, source_x: np.ndarray, source_y: np.ndarray) -> tuple[
    np.ndarray, np.ndarray
]:  # fmt: skip
    """Bilinear values of packed objects at positions in 1/4096 of an object pixel (centres at .5)."""
    limit = (OBJECT_SIZE + 1) * 32 - 1
    fine_x = np.clip((source_x >> 7) + 16, 0, limit)  # in 1/32 pixel of the object padded by one pixel
    fine_y = np.clip((source_y >> 7) + 16, 0, limit)
    part_x, part_y = fine_x & 31, fine_y & 31
    corner = _spread(objects * _PADDED**2) + (fine_y >> 5) * _PADDED + (fine_x >> 5)
    flat = bank.ravel()
    total = flat[corner] * ((32 - part_x) * (32 - part_y))
    total += flat[corner + 1] * (part_x * (32 - part_y))
    total += flat[corner + _PADDED] * ((32 - part_x) * part_y)
    total += flat[corner + _PADDED + 1] * (part_x * part_y)
    cover = total >> 20
    return (total & (_COVER - 1)) // np.maximum(cover, 1), cover >= 512


def _paint_object(dice: Dice, image: np.ndarray, grey: np.ndarray, masks: np.ndarray) -> None:
    """Paints the objects onto images uint8[n,S,S,3] in two random colours each, one for dark, one for bright.

    Of eight random pairs the one is taken that differs most from what lies around the object and within
    itself, so that the form stays visible on every background.
    """
    outside = ~masks
    count = np.maximum(outside.sum((1, 2)), 1)
    around = np.stack([(image[..., c] * outside).sum((1, 2)) // count for c in range(3)], axis=-1)
    pairs = dice.below(256, 8, 2, 3)
    own = abs(pairs[:, :, 0] - pairs[:, :, 1]).sum(-1)
    # Cloth is mostly bright, so it is the bright colour that has to stand out.
    apart = abs(pairs[:, :, 1] - around[:, None]).sum(-1)
    best = np.argmax(np.minimum(own, 256) + 2 * np.minimum(apart, 256), axis=1)
    dark, bright = pairs[np.arange(len(pairs)), best].transpose(1, 0, 2)
    np.copyto(image, _blend(dark, bright, grey), where=masks[..., None])


@cache
def _packed_objects(split: str) -> np.ndarray:
    """int32[N,30,30]: each pixel's grey value plus _COVER on the silhouette, zero elsewhere and on a rim."""
    images, masks = read_objects(split).images.astype(np.int32), object_silhouettes(split)
    return np.pad((images + _COVER) * masks, ((0, 0), (1, 1), (1, 1))).astype(np.int32)


@cache
def _extents(split: str) -> np.ndarray:
    """int64[N,4]: left, top, width and height of each silhouette in pixels."""
    boxes = np.stack([tight_box(mask) for mask in object_silhouettes(split)])
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


@cache
def _shuffled_pieces(split: str) -> np.ndarray:
    """uint8[N,28,28]: the objects, background still 0, cut into 16 pieces that are shuffled and mirrored."""
    masked = read_objects(split).images * object_silhouettes(split)
    count, side = len(masked), OBJECT_SIZE // _PIECE
    pieces = masked.reshape(count, side, _PIECE, side, _PIECE).swapaxes(2, 3).reshape(count, side**2, _PIECE, _PIECE)
    dice = Dice(_SHUFFLE, OBJECT_SPLITS.index(split), np.arange(count))
    order = np.argsort(dice.below(2**31, side**2), axis=1, kind="stable")
    pieces = np.take_along_axis(pieces, order[:, :, None, None], axis=1)
    for axis in (2, 3):
        mirrored = dice.below(2, side**2)[:, :, None, None] == 1
        pieces = np.where(mirrored, np.flip(pieces, axis), pieces)
    return np.ascontiguousarray(pieces.reshape(count, side, side, _PIECE, _PIECE).swapaxes(2, 3)).reshape(masked.shape)
