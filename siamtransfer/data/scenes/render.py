"""Renders Fashion Scenes: backgrounds, and objects at any scale, rotation and position, with exact masks.

All arithmetic is on integers, so every machine gives the same bytes. Lengths are in units of 1/FRAME of the
frame, so a scene keeps its layout at every size. Legend: n scenes rendered together, S pixels a side.

Raw pixels do not separate the classes, but a network can: the colours vary much and say nothing about the
class. The background and each object have a colour field of their own, whose hue varies over the frame while
its luminance is constant; the object's grey values only shade its field. So two pictures of one garment
differ most in colour, and pixel by pixel they have little in common. A network that learns to ignore colour
(from views without colour) finds garment, folds and prints in the luminance. Because the hue varies, the
colour of a crop does not tell its image; a Siamese network would learn a constant colour of an image first.
The clutter is made of shuffled pieces of other objects, so there is cloth behind objects too.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from siamtransfer.data.scenes.counter_rng import CounterRng
from siamtransfer.data.scenes.objects import (
    OBJECT_SIZE,
    OBJECT_SPLITS,
    object_silhouettes,
    read_objects,
    tight_box,
)

FRAME = 1024

LUMINANCE = 115  # of every colour field
BLUE, RED = 64, 82  # the largest Cb and Cr (BT.601) with which no colour of that luminance leaves 0 to 255
NODES = 3  # a side, the points with random hues of a colour field; between them it is bilinear
UNSHADED = 170  # the grey value that leaves a colour as it is
CLUTTER = 2  # shuffled, faded pieces of objects in a background

_PIECE = 7  # side in pixels of the pieces into which objects are cut for the clutter
_PADDED = OBJECT_SIZE + 2
_COVER = 1 << 20  # the mask's bit in a packed pixel, above 1024 * 255, the largest weighted sum of greys


def render_background(rng: CounterRng, split: str, size: int) -> np.ndarray:
    """Backgrounds uint8[n,S,S,3]: a colour field, shaded here and there by shuffled, faded pieces."""
    x, y = _grid(size)
    image = _colour_field(rng, size)
    pieces = _shuffled_pieces(split)
    for _ in range(CLUTTER):
        wide, high = (rng.between(150, 300) for _ in range(2))
        column = (x - _spread(rng.between(-wide // 2, FRAME - wide // 2))) * OBJECT_SIZE // _spread(wide)
        row = (y - _spread(rng.between(-high // 2, FRAME - high // 2))) * OBJECT_SIZE // _spread(high)
        inside = (column >= 0) & (column < OBJECT_SIZE) & (row >= 0) & (row < OBJECT_SIZE)
        source = _spread(rng.below(len(pieces))) * OBJECT_SIZE**2 + row * OBJECT_SIZE + column
        packed = pieces.ravel()[np.where(inside, source, 0)]
        faded = ((packed & (_COVER - 1)) + UNSHADED) >> 1
        shaded = _shaded(_colour_field(rng, size), faded)
        np.copyto(image, shaded, where=(inside & (packed >= _COVER))[..., None])
    return image


def render_object(rng: CounterRng, image: np.ndarray, grey: np.ndarray, mask: np.ndarray) -> None:
    """Draws an object, grey[n,S,S] where mask[n,S,S], into each of the images uint8[n,S,S,3], in place."""
    np.copyto(image, _shaded(_colour_field(rng, image.shape[1]), grey), where=mask[..., None])


def place_objects(
    rng: CounterRng, split: str, objects: np.ndarray, size: int, smallest: int, largest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Puts objects[n] at random scales, stretches, rotations and positions into the frame, mirrored or not.

    The longer side of an object becomes `smallest` to `largest` units. Returns grey values int32[n,S,S], from
    0 to 255 and bilinear over the object's own pixels only, and masks bool[n,S,S], true where at least half
    of the pixel's weight lies on the silhouette.
    """
    left, top, width, height = _extents(split)[objects].T
    # Units per object pixel, times 256; the stretch makes one axis up to an eighth shorter.
    zoom = rng.between(smallest, largest) * 256 // np.maximum(width, height)
    stretch = rng.between(-32, 32)
    zoom_x, zoom_y = zoom * (256 - np.maximum(stretch, 0)) >> 8, zoom * (256 + np.minimum(stretch, 0)) >> 8
    flip = 1 - 2 * rng.below(2)

    # A rotation of up to 2 atan(1/8), 14 degrees, in 1/4096: rational in t, so no sine has to be rounded.
    t, unit = rng.between(-128, 128), 1 << 20
    cosine, sine = (unit - t * t) * 4096 // (unit + t * t), 2 * t * 1024 * 4096 // (unit + t * t)
    half_x = (width * zoom_x * cosine + height * zoom_y * abs(sine)) >> 21
    half_y = (height * zoom_y * cosine + width * zoom_x * abs(sine)) >> 21
    # A rotated object can be a little longer than the frame; it is then centred, and its ends are cut off.
    slack_x, slack_y = (np.maximum(FRAME // 2 - half, 0) for half in (half_x, half_y))
    centre_x, centre_y = (_spread(FRAME // 2 + rng.between(-slack, slack)) for slack in (slack_x, slack_y))

    # Back from units to object pixels in 1/4096, the origin of an object at its bounding box's centre.
    x, y = _grid(size)
    per_x, per_y = (1 << 20) // zoom_x * flip, (1 << 20) // zoom_y
    source_x = (x - centre_x) * _spread(cosine * per_x >> 12) + (y - centre_y) * _spread(sine * per_x >> 12)
    source_y = (y - centre_y) * _spread(cosine * per_y >> 12) - (x - centre_x) * _spread(sine * per_y >> 12)
    source_x += _spread((2 * left + width) * 2048)
    source_y += _spread((2 * top + height) * 2048)
    return _sample(_packed_objects(split), objects, source_x, source_y)


def _sample(
    bank: np.ndarray, objects: np.ndarray, source_x: np.ndarray, source_y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear grey values and masks at positions in 1/4096 of an object pixel, whose centres lie at .5."""
    limit = (OBJECT_SIZE + 1) * 32 - 1
    fine_x = np.clip((source_x >> 7) + 16, 0, limit)  # in 1/32 pixel of the object padded by one pixel
    fine_y = np.clip((source_y >> 7) + 16, 0, limit)
    fraction_x, fraction_y = fine_x & 31, fine_y & 31
    corner = _spread(objects * _PADDED**2) + (fine_y >> 5) * _PADDED + (fine_x >> 5)
    flat = bank.ravel()
    # One sum carries both: the mask's weight above bit 20, the weighted grey values below.
    total = flat[corner] * ((32 - fraction_x) * (32 - fraction_y))
    total += flat[corner + 1] * (fraction_x * (32 - fraction_y))
    total += flat[corner + _PADDED] * ((32 - fraction_x) * fraction_y)
    total += flat[corner + _PADDED + 1] * (fraction_x * fraction_y)
    weight = total // _COVER
    return (total & (_COVER - 1)) // np.maximum(weight, 1), weight >= 512


def _colour_field(rng: CounterRng, size: int) -> np.ndarray:
    """uint8[n,S,S,3]: random hues on NODES x NODES points, bilinear between them, all of one luminance."""
    cell = FRAME // (NODES - 1)
    along = _grid(size)[0].ravel()
    # Weights int32[S,NODES] of the nodes for each column (and row), which add up to `cell`.
    weights = np.maximum(cell - abs(along[:, None] - cell * np.arange(NODES, dtype=np.int32)), 0)
    fields = []
    for limit in (BLUE, RED):
        nodes = rng.between(-limit, limit, NODES, NODES).astype(np.int32)
        fields.append(weights @ nodes @ weights.T // cell**2)
    blue, red = fields
    channels = [
        LUMINANCE + (359 * red >> 8),
        LUMINANCE - (88 * blue + 183 * red >> 8),
        LUMINANCE + (454 * blue >> 8),
    ]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def _shaded(colours: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """uint8[n,S,S,3]: colours of that shape scaled by grey[n,S,S], which is 0 to 255 and 1 at UNSHADED."""
    return np.minimum(colours.astype(np.int32) * 3 * grey[..., None] >> 9, 255).astype(np.uint8)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x int32[1,1,S] and y int32[1,S,1]: the centres of the pixels in units of the frame."""
    centres = ((2 * np.arange(size, dtype=np.int32) + 1) * (FRAME // 2)) // size
    return centres[None, None, :], centres[None, :, None]


def _spread(values: np.ndarray) -> np.ndarray:
    """int64[n] as int32[n,1,1], to broadcast over the grid."""
    return values.astype(np.int32)[:, None, None]


@cache
def _extents(split: str) -> np.ndarray:
    """int64[N,4]: left, top, width and height of each silhouette in pixels."""
    boxes = np.stack([tight_box(mask) for mask in object_silhouettes(split)])
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


@cache
def _packed(split: str) -> np.ndarray:
    """int32[N,28,28]: grey values plus _COVER on the silhouette, else 0."""
    masks = object_silhouettes(split)
    return ((read_objects(split).images.astype(np.int32) + _COVER) * masks).astype(np.int32)


@cache
def _packed_objects(split: str) -> np.ndarray:
    """int32[N,30,30]: the packed objects with an empty rim."""
    return np.pad(_packed(split), ((0, 0), (1, 1), (1, 1)))


@cache
def _shuffled_pieces(split: str) -> np.ndarray:
    """int32[N,28,28]: the packed objects cut into 16 pieces each, which are shuffled and mirrored."""
    objects = _packed(split)
    count, side = len(objects), OBJECT_SIZE // _PIECE
    grid = objects.reshape(count, side, _PIECE, side, _PIECE).swapaxes(2, 3)
    pieces = grid.reshape(count, -1, _PIECE, _PIECE)
    rng = CounterRng(OBJECT_SPLITS.index(split), np.arange(count))
    order = np.argsort(rng.below(2**31, side**2), axis=1, kind="stable")
    pieces = np.take_along_axis(pieces, order[:, :, None, None], axis=1)
    for axis in (2, 3):
        mirrored = rng.below(2, side**2)[:, :, None, None] == 1
        pieces = np.where(mirrored, np.flip(pieces, axis), pieces)
    grid = pieces.reshape(count, side, side, _PIECE, _PIECE).swapaxes(2, 3)
    return np.ascontiguousarray(grid).reshape(objects.shape)
