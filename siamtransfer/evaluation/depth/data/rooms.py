"""Depth Rooms: rendered rooms with clothes in them, and the distance of every pixel.

A pinhole camera stands in a box of six walls, each with a pattern of fixed size in metres, so what is far has
fine patterns. Garments stand upright on the floor, of about one metre, so what is far is small. Camera,
room and colours are drawn for every image; where something lies in the picture does not say how far it is.
A room is a function of (seed, split, index), by arithmetic that every machine rounds alike.

Legend: S pixels a side; X to the right, Y down, Z away from the camera, in metres.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from siamtransfer.data.imageset import fingerprint_of_arrays
from siamtransfer.data.scenes.counter_rng import CounterRng
from siamtransfer.data.scenes.objects import OBJECT_SIZE, object_silhouettes, read_objects
from siamtransfer.utils.errors import UserError

NAME = "depth-rooms"
SIZE, COUNTS = 128, {"train": 400, "test": 100}
SMALLEST, LARGEST = 32, 512
OBJECTS = 4  # at most
_MARGIN = 0.3  # metres between a garment and the back wall
_KIND = 3  # first word of the random numbers' key; scenes have 1 and 2
_MILLE = 1000
_KEPT = 8  # rendered last
_HASHED = 2


class DepthRooms:
    """`count` rooms of `size` pixels a side, rendered when they are read (DepthImages). A rectangle of every
    depth map is missing.

    Raises:
        UserError: there is no such split, or the size or the count is out of range.
    """

    name = NAME

    def __init__(
        self, split: str = "train", size: int | None = None, count: int | None = None, seed: int = 0
    ):
        if split not in COUNTS:
            raise UserError(f"data.split: {NAME} has no split {split!r}; choose train or test")
        self.split, self._size, self._seed = split, SIZE if size is None else size, seed
        self._count = COUNTS[split] if count is None else count
        if not SMALLEST <= self._size <= LARGEST:
            raise UserError(
                f"data.size is {self._size}, but rooms have {SMALLEST} to {LARGEST} pixels a side"
            )
        if self._count < 1:
            raise UserError(f"data.count is {count}, but at least one room is needed; raise it")
        self.remarks: list[str] = []

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over count, size, seed, and the first images and depth maps."""
        text = f"{self.name} {self.split} {len(self)} {self._size} {self._seed}"
        first = range(min(_HASHED, len(self)))
        arrays = [array for index in first for array in (self.image(index), self.depth(index))]
        return fingerprint_of_arrays(*arrays, text=text)

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> np.ndarray:
        """Room `index` as uint8[S, S, 3]."""
        return self._room(index)[0].copy()

    def depth(self, index: int) -> np.ndarray:
        """float32[S, S]: the distance along Z in metres, of whole millimetres; 0 where it is missing."""
        return self._room(index)[1].copy()

    def describe(self, index: int) -> str:
        """For example `depth-rooms/train[17]`."""
        return f"{self.name}/{self.split}[{index}]"

    def describe_depth(self, index: int) -> str:
        """The same: the two are rendered together."""
        return self.describe(index)

    def _room(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"room {index} of {len(self)}")
        return _rendered(self.split, index, self._size, self._seed)


@lru_cache(_KEPT)
def _rendered(split: str, index: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = CounterRng(_KIND, seed, sorted(COUNTS).index(split), index)
    focal, horizon = _between(rng, 700, 1100) * size, _between(rng, 300, 550) * size
    camera = _between(rng, 1000, 1800)  # above the floor
    columns, rows = np.arange(size) + 0.5 - size / 2, np.arange(size) + 0.5 - horizon
    image, depth = _box(rng, camera, columns / focal, rows / focal)
    back = float(depth.max())
    count = int(rng.between(2, OBJECTS)[0])
    distances = sorted(
        (_between(rng, 1200, int(1000 * (back - _MARGIN))) for _ in range(count)), reverse=True
    )
    for distance in distances:
        _garment(rng, split, image, depth, (focal, horizon, camera, distance))
    top, left = (int(rng.below(size * 3 // 4)[0]) for _ in range(2))
    depth[top : top + size // 8, left : left + size // 8] = 0
    return image, (np.floor(depth * _MILLE + 0.5) / _MILLE).astype(np.float32)


def _between(rng: CounterRng, low: int, high: int) -> float:
    """A number between two thousandths."""
    return int(rng.between(low, high)[0]) / _MILLE


def _box(rng: CounterRng, camera: float, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The empty room: uint8[S, S, 3] and float64[S, S], seen along rays (x[S], y[S], 1)."""
    back = _between(rng, 3500, 8000)
    right, left = (_between(rng, 1200, 3000) for _ in range(2))
    ceiling = _between(rng, 500, 1200)
    size = len(x)
    with np.errstate(divide="ignore"):
        floor = np.where(y > 0, camera / y, np.inf)[:, None] + np.zeros(size)
        top = np.where(y < 0, -ceiling / y, np.inf)[:, None] + np.zeros(size)
        sides = np.where(x > 0, right / x, np.where(x < 0, -left / x, np.inf)) + np.zeros((size, 1))
    depth = np.full((size, size), back)
    image = np.zeros((size, size, 3), np.uint8)
    planes = ((depth.copy(), "back"), (floor, "floor"), (top, "floor"), (sides, "side"))
    for distance, kind in planes:
        seen = distance <= depth
        across = np.where(seen, distance, 0) * (y[:, None] if kind == "side" else x[None])
        along = np.where(seen, distance, 0) * (y[:, None] if kind == "back" else 1)
        pattern = _pattern(rng, across, along)
        image[seen], depth[seen] = pattern[seen], distance[seen]
    return image, depth


def _pattern(rng: CounterRng, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """uint8[S, S, 3]: tiles in two colours on a plane with these coordinates in metres."""
    side = _between(rng, 300, 600)
    tile = (np.floor(across / side) + np.floor(along / side)) % 2
    first, second = rng.between(40, 200, 3)[0], rng.between(-60, 60, 3)[0]
    colours = np.stack([first, np.clip(first + second, 0, 255)]).astype(np.uint8)
    return colours[tile.astype(np.int64)]


def _garment(
    rng: CounterRng,
    split: str,
    image: np.ndarray,
    depth: np.ndarray,
    place: tuple[float, float, float, float],
) -> None:
    """Draws a garment into both arrays, where nothing nearer is; `place` is the focal length and the
    horizon in pixels, the camera's height and the garment's distance in metres."""
    focal, horizon, camera, distance = place
    size = len(image)
    objects = read_objects(split)
    number = int(rng.below(len(objects))[0])
    height = _between(rng, 800, 1200) * focal / distance  # pixels
    bottom = horizon + camera * focal / distance
    left = _between(rng, 0, _MILLE) * (size - height)
    row = np.floor((np.arange(size) + 0.5 - (bottom - height)) * OBJECT_SIZE / height).astype(np.int64)
    column = np.floor((np.arange(size) + 0.5 - left) * OBJECT_SIZE / height).astype(np.int64)
    inside = [(indices >= 0) & (indices < OBJECT_SIZE) for indices in (row, column)]
    window = np.ix_(np.flatnonzero(inside[0]), np.flatnonzero(inside[1]))
    source = np.ix_(row[inside[0]], column[inside[1]])
    shown = object_silhouettes(split)[number][source].astype(bool) & (depth[window] > distance)
    colour = rng.between(80, 255, 3)[0]
    grey = objects.images[number][source].astype(np.int64)
    painted = (grey[..., None] * colour // 255).astype(np.uint8)
    image[window] = np.where(shown[..., None], painted, image[window])
    depth[window] = np.where(shown, distance, depth[window])
