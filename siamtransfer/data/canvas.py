"""Paints Fashion Scenes: backgrounds, and objects at any scale, turn and place, with exact masks.

All arithmetic is on integers, so every machine gives the same bytes. Lengths are in units of 1/FRAME of the
frame, so a scene keeps its layout at every size. Legend: n scenes painted together, S pixels a side.

What makes raw pixels useless and a network useful here: an object is painted as a relief, that is its grey
values less their local mean, on a flat colour as bright as the background. So there is no bright area whose
overlap gives the class away; there are contours, folds and prints, which never fall on the same pixels twice.
The clutter is cut from shuffled pieces of other objects in the same way, so cloth is behind objects too.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from siamtransfer.data.dice import Dice
from siamtransfer.data.objects import OBJECT_SIZE, OBJECT_SPLITS, object_silhouettes, read_objects, tight_box

FRAME = 1024

BRIGHTNESS = 10  # a background's mean grey value is 128 plus or minus this
HUE = 15  # and each of its channels, and each of an object's, that plus or minus this
CLUTTER = 3  # shuffled pieces of objects in a background
NEIGHBOURHOOD = 7  # side in object pixels of the square whose mean a relief lacks

_PIECE = 7  # side in pixels of the pieces into which objects are cut for the clutter
_PADDED = OBJECT_SIZE + 2
_ZERO = 256  # the packed value of a relief of 0
_COVER = 1 << 20  # the mask's bit in a packed pixel: above 1024 * 511, the largest weighted sum of reliefs


def paint_background(dice: Dice, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Backgrounds uint8[n,S,S,3] and their mean colours int64[n,3].

    A background is one colour with shuffled pieces of objects in relief, all of about the same brightness.
    """
    x, y = _grid(size)
    base = 128 + dice.between(-BRIGHTNESS, BRIGHTNESS, 1) + dice.between(-HUE, HUE, 3)
    canvas = np.empty((len(base), size, size, 3), np.uint8)
    canvas[:] = base[:, None, None, :]
    pieces = _shuffled_pieces(split)
    for _ in range(CLUTTER):
        wide, high = (dice.between(150, 300) for _ in range(2))
        column = (x - _spread(dice.between(-wide // 2, FRAME - wide // 2))) * OBJECT_SIZE // _spread(wide)
        row = (y - _spread(dice.between(-high // 2, FRAME - high // 2))) * OBJECT_SIZE // _spread(high)
        inside = (column >= 0) & (column < OBJECT_SIZE) & (row >= 0) & (row < OBJECT_SIZE)
        source = _spread(dice.below(len(pieces))) * OBJECT_SIZE**2 + row * OBJECT_SIZE + column
        packed = pieces.ravel()[np.where(inside, source, 0)]
        colours = _tinted(base + dice.between(-HUE, HUE, 3), (packed & (_COVER - 1)) - _ZERO)
        np.copyto(canvas, colours, where=(inside & (packed >= _COVER))[..., None])
    return canvas, base


def paint_object(
    dice: Dice, image: np.ndarray, base: np.ndarray, relief: np.ndarray, mask: np.ndarray
) -> None:
    """Paints one object into each of the images uint8[n,S,S,3] whose mean colours are base[n,3]."""
    np.copyto(image, _tinted(base + dice.between(-HUE, HUE, 3), relief), where=mask[..., None])


def place_objects(dice: Dice, split: str, objects: np.ndarray, size: int, smallest: int,
                  largest: int) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Puts objects[n] at random scales, stretches, turns and places, mirrored or not, inside the frame.

    The longer side of an object becomes `smallest` to `largest` units. Returns reliefs int32[n,S,S], between
    -256 and 255 and bilinear over the object's own pixels only, and masks bool[n,S,S], true where at least
    half of the pixel's weight lies on the silhouette.
    """
    left, top, width, height = _extents(split)[objects].T
    # Units per object pixel, times 256; the stretch makes one axis up to an eighth shorter.
    zoom = dice.between(smallest, largest) * 256 // np.maximum(width, height)
    stretch = dice.between(-32, 32)
    zoom_x, zoom_y = zoom * (256 - np.maximum(stretch, 0)) >> 8, zoom * (256 + np.minimum(stretch, 0)) >> 8
    flip = 1 - 2 * dice.below(2)

    # A turn of up to 2 atan(1/8), 14 degrees, in 1/4096: rational in t, so that no sine has to be rounded.
    t, one = dice.between(-128, 128), 1 << 20
    cosine, sine = (one - t * t) * 4096 // (one + t * t), 2 * t * 1024 * 4096 // (one + t * t)
    half_x = (width * zoom_x * cosine + height * zoom_y * abs(sine)) >> 21
    half_y = (height * zoom_y * cosine + width * zoom_x * abs(sine)) >> 21
    # A turned object can be a little longer than the frame; it is then centred, and its ends are cut.
    slack_x, slack_y = (np.maximum(FRAME // 2 - half, 0) for half in (half_x, half_y))
    centre_x, centre_y = (_spread(FRAME // 2 + dice.between(-slack, slack)) for slack in (slack_x, slack_y))

    # Back from units to object pixels in 1/4096, the origin of an object at its bounding box's centre.
    x, y = _grid(size)
    per_x, per_y = (1 << 20) // zoom_x * flip, (1 << 20) // zoom_y
    source_x = (x - centre_x) * _spread(cosine * per_x >> 12) + (y - centre_y) * _spread(sine * per_x >> 12)
    source_y = (y - centre_y) * _spread(cosine * per_y >> 12) - (x - centre_x) * _spread(sine * per_y >> 12)
    return _sample(
        _packed_objects(split), objects, source_x + _spread((2 * left + width) * 2048),
        source_y + _spread((2 * top + height) * 2048),
    )  # fmt: skip


def _sample(bank: np.ndarray, objects: np.ndarray, source_x: np.ndarray,
            source_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Bilinear reliefs and masks at positions in 1/4096 of an object pixel, whose centres lie at .5."""
    limit = (OBJECT_SIZE + 1) * 32 - 1
    fine_x = np.clip((source_x >> 7) + 16, 0, limit)  # in 1/32 pixel of the object padded by one pixel
    fine_y = np.clip((source_y >> 7) + 16, 0, limit)
    part_x, part_y = fine_x & 31, fine_y & 31
    corner = _spread(objects * _PADDED**2) + (fine_y >> 5) * _PADDED + (fine_x >> 5)
    flat = bank.ravel()
    # One sum carries both: the mask's weight above bit 20, the weighted reliefs below.
    total = flat[corner] * ((32 - part_x) * (32 - part_y))
    total += flat[corner + 1] * (part_x * (32 - part_y))
    total += flat[corner + _PADDED] * ((32 - part_x) * part_y)
    total += flat[corner + _PADDED + 1] * (part_x * part_y)
    weight = total // _COVER
    return (total & (_COVER - 1)) // np.maximum(weight, 1) - _ZERO, weight >= 512


def _tinted(colour: np.ndarray, brighter: np.ndarray | int) -> np.ndarray:
    """uint8[n,S,S,3]: the colour[n,3] made brighter by [n,S,S] grey values."""
    shade = np.asarray(brighter, np.int16)[..., None]
    return np.clip(colour.astype(np.int16)[:, None, None, :] + shade, 0, 255).astype(np.uint8)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x int32[1,1,S] and y int32[1,S,1]: the centres of the pixels in units of the frame."""
    centres = ((2 * np.arange(size, dtype=np.int32) + 1) * (FRAME // 2)) // size
    return centres[None, None, :], centres[None, :, None]


def _spread(values: np.ndarray) -> np.ndarray:
    """int64[n] as int32[n,1,1], to meet the grid."""
    return values.astype(np.int32)[:, None, None]


@cache
def _extents(split: str) -> np.ndarray:
    """int64[N,4]: left, top, width and height of each silhouette in pixels."""
    boxes = np.stack([tight_box(mask) for mask in object_silhouettes(split)])
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


@cache
def _reliefs(split: str) -> np.ndarray:
    """int32[N,28,28]: grey values less their local mean plus _ZERO, and _COVER, on the silhouette; else 0."""
    masks = object_silhouettes(split)
    grey = (read_objects(split).images * masks).astype(np.int32)
    reach = NEIGHBOURHOOD // 2
    sums = np.pad(grey, ((0, 0), (reach + 1, reach), (reach + 1, reach))).cumsum(1).cumsum(2)
    n = NEIGHBOURHOOD
    sums = sums[:, n:, n:] - sums[:, :-n, n:] - sums[:, n:, :-n] + sums[:, :-n, :-n]
    return ((grey - sums // n**2 + _ZERO + _COVER) * masks).astype(np.int32)


@cache
def _packed_objects(split: str) -> np.ndarray:
    """int32[N,30,30]: the reliefs with an empty rim."""
    return np.pad(_reliefs(split), ((0, 0), (1, 1), (1, 1)))


@cache
def _shuffled_pieces(split: str) -> np.ndarray:
    """int32[N,28,28]: the reliefs cut into 16 pieces each, which are shuffled and mirrored."""
    whole = _reliefs(split)
    count, side = len(whole), OBJECT_SIZE // _PIECE
    pieces = (
        whole.reshape(count, side, _PIECE, side, _PIECE).swapaxes(2, 3).reshape(count, -1, _PIECE, _PIECE)
    )
    dice = Dice(OBJECT_SPLITS.index(split), np.arange(count))
    order = np.argsort(dice.below(2**31, side**2), axis=1, kind="stable")
    pieces = np.take_along_axis(pieces, order[:, :, None, None], axis=1)
    for axis in (2, 3):
        mirrored = dice.below(2, side**2)[:, :, None, None] == 1
        pieces = np.where(mirrored, np.flip(pieces, axis), pieces)
    return np.ascontiguousarray(pieces.reshape(count, side, side, _PIECE, _PIECE).swapaxes(2, 3)).reshape(
        whole.shape
    )
