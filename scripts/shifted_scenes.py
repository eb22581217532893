"""Writes Fashion Scenes with noise: other images of the same classes, to adapt a network to.

    python scripts/shifted_scenes.py OUT --noise 50 --train 4000 --test 1000

OUT/train and OUT/test have one folder a class with PNG files of 32 pixels. The scenes are those of seed 1,
and each channel of each pixel gets Gaussian noise whose standard deviation is given in grey levels of 255.
Equal arguments give equal files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from siamtransfer.data.scenes.scenes import FashionScenes

SEED = 1


def write(folder: Path, split: str, count: int, noise: float) -> None:
    """Writes `count` scenes of a split as folder/split/class/NUMBER.png."""
    scenes = FashionScenes(split, 32, count, SEED)
    for number, (pixels, label) in enumerate(zip(scenes.pixels, scenes.labels, strict=True)):
        generator = np.random.Generator(np.random.Philox([number, int(split == "test")]))
        noisy = pixels + generator.normal(0, noise, pixels.shape)
        path = folder / split / scenes.classes[label].replace("/", "-") / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(noisy.round(), 0, 255).astype(np.uint8)).save(path)


def main(words: Sequence[str] | None = None) -> None:
    """Writes both splits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write, which must not exist")
    parser.add_argument("--noise", type=float, default=50, help="standard deviation in grey levels of 255")
    parser.add_argument("--train", type=int, default=4000, help="images to adapt to")
    parser.add_argument("--test", type=int, default=1000, help="images to score")
    options = parser.parse_args(words)
    if options.out.exists():
        sys.exit(f"error: {options.out} is there already: choose another folder or remove it")
    if options.noise < 0 or min(options.train, options.test) < 10:
        sys.exit("error: --noise must be at least 0, and --train and --test at least 10, one image a class")
    for split, count in (("train", options.train), ("test", options.test)):
        write(options.out, split, count, options.noise)


if __name__ == "__main__":
    main()
