"""Writes Fashion Scenes that look different: other images of the same classes, to adapt a network to.

    python scripts/shifted_scenes.py OUT --turn 1 --train 5000 --test 2000

OUT/train and OUT/test have one folder a class with PNG files of 32 pixels. The scenes are those of seed 1.
They are turned, blurred, inverted, reduced in contrast and made noisy, in this order, as far as options say
so; without any they are merely other scenes. Equal arguments give equal files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from siamtransfer.data.scenes.scenes import FashionScenes

SEED = 1
GREY = 127.5  # towards which contrast is reduced


@dataclass(frozen=True)
class Shift:
    """How the images differ from those that the network knows.

    turn: quarter turns to the left; blur: standard deviation in pixels of Gaussian blur; invert: 255 minus
    each value; contrast: factor of the distances from mid-grey; noise: standard deviation in grey levels of
    Gaussian noise in each channel of each pixel.
    """

    turn: int = 0
    blur: float = 0
    invert: bool = False
    contrast: float = 1
    noise: float = 0

    def apply(self, pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The image uint8[S,S,3] of such an image."""
        turned = Image.fromarray(np.rot90(pixels, self.turn))
        blurred = turned.filter(ImageFilter.GaussianBlur(self.blur)) if self.blur else turned
        values = np.asarray(blurred).astype(np.float64)
        if self.invert:
            values = 255 - values
        values = GREY + self.contrast * (values - GREY)
        values += generator.normal(0, self.noise, values.shape)
        return np.clip(values.round(), 0, 255).astype(np.uint8)


def write(folder: Path, split: str, count: int, shift: Shift) -> None:
    """Writes `count` scenes of a split as folder/split/class/NUMBER.png."""
    scenes = FashionScenes(split, 32, count, SEED)
    assert scenes.labels is not None
    for number, (pixels, label) in enumerate(zip(scenes.pixels, scenes.labels, strict=True)):
        generator = np.random.Generator(np.random.Philox([number, int(split == "test")]))
        path = folder / split / scenes.classes[label].replace("/", "-") / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shift.apply(pixels, generator)).save(path)


def main(words: Sequence[str] | None = None) -> None:
    """Writes both splits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write, which must not exist")
    parser.add_argument("--turn", type=int, choices=range(4), default=0, help="quarter turns to the left")
    parser.add_argument("--blur", type=float, default=0, help="standard deviation in pixels")
    parser.add_argument("--invert", action="store_true", help="255 minus each value")
    parser.add_argument("--contrast", type=float, default=1, help="factor of the distances from mid-grey")
    parser.add_argument("--noise", type=float, default=0, help="standard deviation in grey levels of 255")
    parser.add_argument("--train", type=int, default=4000, help="images to adapt to")
    parser.add_argument("--test", type=int, default=1000, help="images to score")
    options = parser.parse_args(words)
    if options.out.exists():
        sys.exit(f"error: {options.out} is there already: choose another folder or remove it")
    if not (0 <= options.noise <= 255 and 0 <= options.blur <= 32):
        sys.exit("error: --noise must be 0 to 255, and --blur 0 to 32, the side of an image")
    if not 0 < options.contrast <= 1:
        sys.exit("error: --contrast must be above 0 and at most 1, which changes nothing")
    if min(options.train, options.test) < 10:
        sys.exit("error: --train and --test must be at least 10, one image a class")
    shift = Shift(options.turn, options.blur, options.invert, options.contrast, options.noise)
    for split, count in (("train", options.train), ("test", options.test)):
        write(options.out, split, count, shift)


if __name__ == "__main__":
    main()
