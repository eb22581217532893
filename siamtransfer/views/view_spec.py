"""What a view of an image is sampled from: ViewSpec for one view, Recipe for all views of a sample.

This module holds numbers only and imports neither torch nor numpy. `random_params` samples from a recipe,
`crop` crops and resizes by the sampled numbers, and `augment` applies the rest. A view always goes through
the same chain:

    crop and resize, flip, [grey], colour jitter in random order, [grey], blur, solarize, normalise

`grey` comes before the jitter only in MoCo v1. Some papers flip at the end; that gives the same view, because
no later operation depends on left and right.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from siamtransfer.utils.errors import UserError
from siamtransfer.views.mix_spec import Mix

Interpolation = Literal["bilinear", "bicubic"]
Range = tuple[float, float]
Numbers = tuple[float, ...]
"""A number for each channel."""
RGB = (0, 1, 2)
"""The channels that are red, green and blue in images of three channels."""


@dataclass(frozen=True)
class ViewSpec:
    """The distribution of one view of an image.

    Attributes:
        size: side of the square view in pixels.
        scale: smallest and largest fraction of the image's area that the crop covers, sampled uniformly.
        ratio: narrowest and widest crop, width / height, sampled uniformly in its logarithm.
        interpolation: bilinear or bicubic, both antialiased.
        flip_p: probability of a horizontal flip.
        jitter: strengths of brightness, contrast, saturation (factors from 1 - s, at least 0, to 1 + s) and
            of hue (a turn from -s to s of the colour circle, at most 0.5); 0 leaves an operation out.
        jitter_p: probability that the colour jitter happens at all.
        grey_p: probability of losing all colour; `grey_first` does it before the jitter.
        blur_p: probability of a Gaussian blur with a sigma from `blur_sigma`, in pixels of the view.
        solarize_p: probability that grey levels from `solarize_threshold` (of 255) upwards are inverted.

    Raises:
        UserError: a value is out of its range; the sentence names `views.FIELD`.
    """

    size: int
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    flip_p: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.8
    grey_p: float = 0.2
    grey_first: bool = False
    blur_p: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    solarize_p: float = 0.0
    solarize_threshold: int = 128

    def __post_init__(self) -> None:
        for field in VIEW_FIELDS:
            check_setting(f"views.{field}", field, getattr(self, field))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: object, low: int, high: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _are_numbers(value: object, count: int) -> bool:
    return isinstance(value, Sequence) and len(value) == count and all(map(_is_number, value))


def _are_per_channel(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) >= 1 and all(map(_is_number, value))


def _is_probability(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_range(value: Any, top: float = math.inf) -> bool:
    return _are_numbers(value, 2) and 0 < value[0] <= value[1] <= top


_PROBABILITY = _is_probability, "a probability from 0 to 1"
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "size": (lambda value: is_integer(value, 1, math.inf), "a number of pixels from 1"),
    "scale": (lambda value: _is_range(value, 1.0), "two rising numbers above 0 and at most 1"),
    "ratio": (_is_range, "two rising numbers above 0"),
    "interpolation": (lambda value: value in get_args(Interpolation), " or ".join(get_args(Interpolation))),
    "flip_p": _PROBABILITY,
    "jitter": (
        lambda value: _are_numbers(value, 4) and min(value) >= 0 and value[3] <= 0.5,
        "four strengths from 0, the last (hue) at most 0.5",
    ),
    "jitter_p": _PROBABILITY,
    "grey_p": _PROBABILITY,
    "grey_first": (lambda value: isinstance(value, bool), "true or false"),
    "blur_p": _PROBABILITY,
    "blur_sigma": (_is_range, "two rising numbers above 0"),
    "solarize_p": _PROBABILITY,
    "solarize_threshold": (lambda value: is_integer(value, 0, 255), "a grey level from 0 to 255"),
    "mean": (_are_per_channel, "a number for each channel"),
    "std": (
        lambda value: _are_per_channel(value) and min(value) > 0,
        "a number above 0 for each channel",
    ),
}
"""The condition on each setting, and the same in words."""

VIEW_FIELDS = tuple(field.name for field in dataclasses.fields(ViewSpec))
NORMALISATION = ("mean", "std")


def check_setting(key: str, field: str, value: object) -> None:
    """Raises UserError, which names `key`, unless `value` is a valid value of `field`."""
    is_valid, rule = _RULES[field]
    if not is_valid(value):
        raise UserError(f"{key} is {value}, but must be {rule}")


@dataclass(frozen=True)
class Recipe:
    """All views of one sample, the large (global) ones first, and the normalisation of all of them.

    Attributes:
        mean, std: per channel, for values from 0 to 1; evaluation uses the same.
        source: where the numbers come from.
        rgb: the channels that are red, green and blue; empty where none is. Saturation, hue, grey and
            solarize change these alone, everything else changes all channels.
        mix: how views of two images are mixed for training; None: they are not.
    """

    name: str
    views: tuple[ViewSpec, ...]
    mean: Numbers
    std: Numbers
    source: str
    rgb: tuple[int, ...] = RGB
    mix: Mix | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise UserError(
                f"views.mean has {len(self.mean)} numbers and views.std has {len(self.std)}, but both must "
                "have one for each channel"
            )

    @property
    def channels(self) -> int:
        """The channels of a view."""
        return len(self.mean)

    def describe(self) -> list[str]:
        """The parameters of every view and the normalisation, a line each; equal neighbours share a line."""
        lines: list[str] = []
        first = 0
        for last, spec in enumerate(self.views):
            if last + 1 < len(self.views) and self.views[last + 1] == spec:
                continue
            numbers = f"view {first + 1}" if first == last else f"views {first + 1} to {last + 1}"
            lines.append(f"{numbers}: {', '.join(_in_words(spec, field) for field in VIEW_FIELDS)}")
            first = last + 1
        lines.append(", ".join(_in_words(self, field) for field in NORMALISATION))
        if self.mix is not None:
            lines.append(self.mix.describe())
        if (self.channels, self.rgb) == (len(RGB), RGB):
            return lines
        colours = " ".join(map(str, self.rgb)) or "none"
        return [*lines, f"channels {self.channels}, red, green and blue are {colours}"]


def _in_words(owner: ViewSpec | Recipe, field: str) -> str:
    """For example `scale 0.2 1` or `grey_first false`."""
    value = getattr(owner, field)
    if isinstance(value, tuple):
        return " ".join([field, *(f"{number:.4g}" for number in value)])
    return f"{field} {str(value).lower()}"
