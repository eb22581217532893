"""The mean and std that images are normalised with, and the known ones by name. No torch here."""

from __future__ import annotations

import math
from typing import NamedTuple

from siamtransfer.utils.errors import UserError


class Normalisation(NamedTuple):
    """(image - mean) / std for each channel of an RGB image in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SWAV = Normalisation(IMAGENET.mean, (0.228, 0.224, 0.225))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NONE = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

NAMES = {
    "imagenet": IMAGENET,
    "half": HALF,
    "none": NONE,
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.261)),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": Normalisation((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
    "swav": SWAV,
}
"""Normalisations by the names that `--normalisation` takes."""


def parse_normalisation(text: str) -> Normalisation:
    """A name of NAMES, or `m,m,m/s,s,s` in units of [0, 1], red first.

    Raises:
        UserError: it is neither; says what is expected.
    """
    if text in NAMES:
        return NAMES[text]
    try:
        mean, std = (tuple(float(value) for value in part.split(",")) for part in text.split("/"))
    except ValueError:
        mean, std = (), ()
    numbers = (*mean, *std)
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, numbers)) or min(std) <= 0:
        raise UserError(
            f"normalisation {text!r} is not understood: take {', '.join(NAMES)}, or the mean and the "
            "positive std of red, green and blue in [0, 1], as 0.5,0.5,0.5/0.25,0.25,0.25"
        )
    return Normalisation(mean, std)


def describe_normalisation(normalisation: Normalisation) -> str:
    """The name of a known normalisation, otherwise `m,m,m/s,s,s`; `parse_normalisation` reads both."""
    for name, known in NAMES.items():
        if known == normalisation:
            return name
    return "/".join(",".join(f"{value:.6g}" for value in part) for part in normalisation)
