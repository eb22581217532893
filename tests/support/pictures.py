"""Small folders of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_shapes(root: Path, each: int = 20) -> None:
    """Writes `each` noisy PNGs a class to root/upper and root/left."""
    for kind, name in enumerate(("upper", "left")):
        (root / name).mkdir()
        for number in range(each):
            image = np.random.default_rng([kind, number]).integers(0, 128, (20, 24, 3), dtype=np.uint8)
            image[(slice(10), slice(None)) if kind == 0 else (slice(None), slice(12))] += 100
            Image.fromarray(image).save(root / name / f"{number:02d}.png")


def write_parts(root: Path) -> None:
    """Writes such pictures to root/train and root/test, a folder a class in each."""
    for part, each in (("train", 20), ("test", 10)):
        (root / part).mkdir(parents=True)
        write_shapes(root / part, each)
