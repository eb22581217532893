"""Fashion videos: embedded objects that move over a still background, with masks, in the folders of DAVIS
2017.

An object keeps its colours and its size, moves by whole pixels, and turns back at the frame's borders. A
later object passes in front of an earlier one. Frames are a pure function of (seed, split, index), see
scenes.py.

Legend: S pixels a side, T frames, K objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from siamtransfer.data.scenes.counter_rng import CounterRng
from siamtransfer.data.scenes.export import complete_folder, voc_palette
from siamtransfer.data.scenes.objects import OBJECT_SPLITS, read_objects, tight_box
from siamtransfer.data.scenes.render import FRAME, place_objects, render_background, render_object
from siamtransfer.data.scenes.scenes import LEAST_VISIBLE
from siamtransfer.utils.errors import UserError

MOST_OBJECTS = 3
JPEG_QUALITY = 95
LISTS = {"train": "train", "test": "val"}  # of a split's videos, as DAVIS calls them
_VIDEOS = 3  # first word of the random numbers' key
STEP = 5  # per cent of the frame by which an object moves at most between two frames, at speed 1


@dataclass(frozen=True)
class VideoCounts:
    """How many videos of which size and seed make up a written set.

    Attributes:
        train, test: videos with objects of the train and of the test split; test becomes DAVIS's val.
        size: S.
        frames: T.
        speed: 0 for still videos.
    """

    train: int = 4
    test: int = 8
    size: int = 128
    frames: int = 20
    seed: int = 0
    speed: float = 1.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("train", 0, 10_000),
            ("test", 1, 10_000),
            ("size", 16, FRAME),
            ("frames", 3, 100_000),
            ("seed", 0, 2**63 - 1),
            ("speed", 0, 10),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(f"--{name} of videos is {value}, but must be from {least} to {most}")


def write_davis(folder: str | Path, counts: VideoCounts) -> None:
    """Writes JPEGImages/480p/VIDEO/NNNNN.jpg, Annotations/480p/VIDEO/NNNNN.png and
    ImageSets/2017/{train,val}.txt.

    The folder is called 480p whatever the size, as that is where DAVIS 2017 has its frames.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    palette = voc_palette()
    with complete_folder(folder) as new:
        (new / "ImageSets" / "2017").mkdir(parents=True)
        for split, list_name in LISTS.items():
            names = [f"{split}-{index:03d}" for index in range(getattr(counts, split))]
            for index, name in enumerate(names):
                frames, masks = (new / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
                frames.mkdir(parents=True)
                masks.mkdir(parents=True)
                for number, (image, mask) in enumerate(moving_objects(split, index, counts)):
                    Image.fromarray(image).save(
                        frames / f"{number:05d}.jpg", quality=JPEG_QUALITY, subsampling=0
                    )
                    picture = Image.fromarray(mask)
                    picture.putpalette(palette)
                    picture.save(masks / f"{number:05d}.png")
            text = "".join(f"{name}\n" for name in names)
            (new / "ImageSets" / "2017" / f"{list_name}.txt").write_text(text)


@dataclass(frozen=True, eq=False)
class _Sprite:
    """An object at its place in the first frame, and its steps.

    Attributes:
        image: uint8[S, S, 3], the object; other pixels mean nothing.
        mask: bool[S, S].
        step: pixels to the right and down between two frames.
    """

    image: np.ndarray
    mask: np.ndarray
    step: tuple[float, float]

    def at(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask in frame `time`."""
        left, top, right, bottom = tight_box(self.mask).tolist()
        size = len(self.mask)
        shift_x = turned_back(self.step[0] * time, -left, size - right)
        shift_y = turned_back(self.step[1] * time, -top, size - bottom)
        return np.roll(self.image, (shift_y, shift_x), (0, 1)), np.roll(self.mask, (shift_y, shift_x), (0, 1))


def moving_objects(split: str, index: int, counts: VideoCounts) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The frames uint8[S, S, 3] of video `index` with their masks uint8[S, S]: 0, or the object from 1 to
    K."""
    rng = CounterRng(_VIDEOS, OBJECT_SPLITS.index(split), counts.seed, np.array([index]))
    background = render_background(rng, split, counts.size)
    sprites = _sprites(rng, split, background, counts)
    for time in range(counts.frames):
        image, mask = background[0].copy(), np.zeros(background.shape[1:3], np.uint8)
        for number, sprite in enumerate(sprites, 1):
            pixels, there = sprite.at(time)
            image[there], mask[there] = pixels[there], number
        yield image, mask


def _sprites(rng: CounterRng, split: str, background: np.ndarray, counts: VideoCounts) -> list[_Sprite]:
    """One to MOST_OBJECTS objects, each at least LEAST_VISIBLE per cent uncovered in the first frame."""
    sprites: list[_Sprite] = []
    left: list[np.ndarray] = []
    for _ in range(1 + int(rng.below(MOST_OBJECTS)[0])):
        chosen = rng.below(len(read_objects(split)))
        grey, mask = place_objects(rng, split, chosen, counts.size, smallest=260, largest=480)
        image = background.copy()
        render_object(rng, image, grey, mask)
        most = counts.speed * counts.size * STEP / 100
        step = (most * float(rng.between(-256, 256)[0]) / 256, most * float(rng.between(-256, 256)[0]) / 256)
        now = [earlier & ~mask[0] for earlier in left]
        if any(
            100 * seen.sum() < LEAST_VISIBLE * sprite.mask.sum()
            for seen, sprite in zip(now, sprites, strict=True)
        ):
            continue
        left = [*now, mask[0]]
        sprites.append(_Sprite(image[0], mask[0], step))
    return sprites


def turned_back(distance: float, low: int, high: int) -> int:
    """A place from `low` to `high` (0 lies between): that after `distance`, reflected at both ends."""
    span = high - low
    if span == 0:
        return 0
    phase = (distance - low) % (2 * span)
    return low + round(min(phase, 2 * span - phase))
