"""The mean and std that images are normalised with, and the known ones by name. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import shown


class Normalisation(NamedTuple):
    """(image - mean) / std for each channel of an image in [0, 1], which is RGB as a rule."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SWAV = Normalisation(IMAGENET.mean, (0.228, 0.224, 0.225))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Of OpenAI's CLIP, and of most weights of open_clip."""
NONE = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CAFFE = Normalisation((123.675 / 255, 116.28 / 255, 103.53 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Of MSRA's and Caffe's ResNets: images of 0 to 255 minus the mean. Those networks take BGR."""
CIFAR10 = Normalisation((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
"""As solo-learn's pretraining has it."""
CIFAR10_LOOSE = Normalisation(CIFAR10.mean, (0.2023, 0.1994, 0.201))
"""With the mean of the images' own stds, a common misreading, which DirectPred's code has."""

NAMES = {
    "imagenet": IMAGENET,
    "half": HALF,
    "clip": CLIP,
    "none": NONE,
    "cifar10": CIFAR10,
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": Normalisation((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
    "swav": SWAV,
    "caffe": CAFFE,
}
"""Normalisations by the names that `--normalisation` takes."""


def parse_normalisation(text: str) -> Normalisation:
    """A name of NAMES, or `m,m,m/s,s,s` in units of [0, 1], red first; of images of another number of
    channels a number for each.

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
    if not mean or len(mean) != len(std) or not all(map(math.isfinite, numbers)) or min(std) <= 0:
        raise UserError(
            f"normalisation {text!r} is not understood: take {', '.join(NAMES)}, or the mean and the "
            "positive std of red, green and blue (or of each channel) in [0, 1], as "
            "0.5,0.5,0.5/0.25,0.25,0.25"
        )
    return Normalisation(mean, std)


def numbers_of(values: Any) -> list[float]:
    """Some numbers of a file as a list.

    Raises:
        ValueError: they are no list of numbers.
    """
    items = values if isinstance(values, list | tuple) else ()
    try:
        numbers = [float(item) for item in items if isinstance(item, int | float)]
    except OverflowError:  # an integer beyond the range of numbers
        numbers = []
    if not items or len(numbers) != len(items):
        raise ValueError(f"{shown(values)} is no list of numbers")
    return numbers


def from_pixels(mean: Sequence[float], std: Sequence[float], scale: float, *, bgr: bool) -> Normalisation:
    """The normalisation of images of 0 to `scale` whose channels have this mean and std, as RGB in [0, 1]; a
    known one, to the bit, where the numbers are those. Images that are not RGB have a number for each
    channel.

    Raises:
        ValueError: they are not finite numbers and as many positive ones, or of BGR not three of each.
    """
    given = numbers_of(mean), numbers_of(std)
    parts = [tuple(value / scale for value in (part[::-1] if bgr else part)) for part in given]
    numbers = [number for part in parts for number in part]
    fitting = len(mean) == len(std) == 3 or (len(mean) == len(std) > 0 and not bgr)
    if not fitting or not all(map(math.isfinite, numbers)) or min(parts[1]) <= 0:
        raise ValueError(
            f"mean {shown(mean)} and std {shown(std)} are not three numbers and three positive ones (or one "
            "of each for every channel)"
        )
    for known in NAMES.values() if len(mean) == 3 else ():
        pairs = zip(numbers, (*known.mean, *known.std), strict=True)
        if all(abs(a - b) < 2e-6 for a, b in pairs):
            return known
    return Normalisation(*parts)


def describe_normalisation(normalisation: Normalisation) -> str:
    """The name of a known normalisation, otherwise `m,m,m/s,s,s`; `parse_normalisation` reads both."""
    for name, known in NAMES.items():
        if known == normalisation:
            return name
    return "/".join(",".join(f"{value:.6g}" for value in part) for part in normalisation)
