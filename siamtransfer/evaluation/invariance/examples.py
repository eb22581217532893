"""A picture of some images in every transformation and strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from siamtransfer.evaluation.dense.sheet import Cell, Sheet, in_colours
from siamtransfer.evaluation.invariance.strengths import SCALES
from siamtransfer.evaluation.invariance.transformations import transformed

IMAGES = 2
"""That are shown, side by side."""


def write_examples(
    path: Path, crops: Tensor, places: np.ndarray, strengths: Mapping[str, Sequence[float]], seed: int
) -> None:
    """Writes a PNG: for each transformation a row of IMAGES images, each as it is and at every strength.

    `crops` are uint8[m, C, S, S] of images at `places` int64[m] of their set.

    Raises:
        UserError: the file cannot be written.
    """
    rows = []
    for name, values in strengths.items():
        cells = []
        for place in range(min(IMAGES, len(crops))):
            one = slice(place, place + 1)
            for strength in (0.0, *values):
                version = transformed(crops[one], name, strength, places[one], seed)
                caption = name.replace("_", " ") if strength == 0 else ""
                cells.append(Cell(_picture(version), caption, note=f"{strength:g}"))
        rows.append(cells)
    units = [f"{name.replace('_', ' ')}: {SCALES[name].unit}" for name in strengths]
    Sheet(["what the network sees, by the strength of the transformation", *units], rows).write(path)


def _picture(crop: Tensor) -> np.ndarray:
    """uint8[S, S, 3] of uint8[1, C, S, S]."""
    return in_colours(np.ascontiguousarray(crop[0].permute(1, 2, 0).numpy()))
