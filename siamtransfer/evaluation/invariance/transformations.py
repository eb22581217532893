"""Transformed versions of a batch of crops, on their device, by the name of a transformation and a strength.

What is random in a version (the way of a turn, the place of a crop, the noise) is a function of the seed, the
image's place in its set and the transformation. It does not depend on the strength, so a curve over strengths
is one image that moves further and further, and not another chance at each point. It depends on no batch,
device or number of processes.

Legend: n crops of S x S pixels in C channels, x float32[n, C, S, S] from 0 to 1, u float64[n, 3] uniform
numbers in [0, 1).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.evaluation.invariance.strengths import SCALES
from siamtransfer.views.augment import (
    blur,
    box_radius,
    change_brightness,
    change_contrast,
    change_contrast_of_channels,
    change_hue,
    change_saturation,
)
from siamtransfer.views.random_params import uniforms

RGB = 3


@dataclass(frozen=True)
class Chance:
    """The random numbers of some images in a transformation.

    Attributes:
        key: what the numbers are a function of, beside the place: the seed and the transformation's number.
        places: int64[n], the images' places in their set.
    """

    key: tuple[int, int]
    places: np.ndarray

    def uniform(self, device: torch.device) -> Tensor:
        """u float64[n, 3]."""
        seed, number = self.key
        drawn = uniforms(seed, number, self.places, 1)[:, 0, :3]
        return torch.from_numpy(np.ascontiguousarray(drawn)).to(device)

    def normal(self, x: Tensor) -> Tensor:
        """Normal numbers of the shape of x, each image's from a generator of its own."""
        drawn = np.empty(x.shape, np.float32)
        for row, place in enumerate(self.places.tolist()):
            generator = np.random.default_rng([*self.key, place])
            generator.standard_normal(dtype=np.float32, out=drawn[row])
        return torch.from_numpy(drawn).to(x.device)


Change = Callable[[Tensor, float, Chance], Tensor]


@torch.no_grad()
def transformed(crops: Tensor, name: str, strength: float, places: np.ndarray, seed: int = 0) -> Tensor:
    """Versions uint8[n, C, S, S] of crops of this shape; at strength 0 the crops themselves.

    Values are rounded to whole ones, as a file of the version would hold them.

    Args:
        name: one of TRANSFORMATIONS.
        strength: from 0 to the largest of `SCALES[name]`.
        places: int64[n], the images' places in their set.
        seed: of what is random.
    """
    if strength == 0:
        return crops
    with torch.autocast(crops.device.type, enabled=False):
        x = crops.to(torch.float32).div_(255)
        chance = Chance((seed, zlib.crc32(name.encode())), places)
        x = TRANSFORMATIONS[name](x, float(strength), chance)
        return x.mul(255).round_().clamp_(0, 255).to(torch.uint8)


# Each may write into x.


def _rotation(x: Tensor, degrees: float, chance: Chance) -> Tensor:
    """A turn about the centre, either way; what becomes free shows the image mirrored at its edge. Quarter
    turns move whole pixels."""
    counter_clockwise = (chance.uniform(x.device)[:, 0] < 0.5).view(-1, 1, 1, 1)
    return torch.where(counter_clockwise, turned(x, degrees), turned(x, -degrees))


def turned(x: Tensor, degrees: float) -> Tensor:
    """x turned counter-clockwise about the centre."""
    quarters = round(degrees / 90)
    x = x.rot90(quarters, (2, 3))
    rest = math.radians(degrees - 90 * quarters)
    if rest == 0:
        return x
    cos, sin = math.cos(rest), math.sin(rest)
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], device=x.device).expand(len(x), 2, 3)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, "bilinear", "reflection", align_corners=False)


def _mirror(x: Tensor, _: float, chance: Chance, *, dimension: int) -> Tensor:
    return x.flip(dimension)


def _crop(x: Tensor, cut_away: float, chance: Chance) -> Tensor:
    """A square of the rest of the area, anywhere, resized to the whole."""
    side = x.shape[-1]
    kept = max(1, round(side * math.sqrt(1 - cut_away)))
    top, left = _corners(side - kept, chance, x.device)
    steps = torch.arange(kept, device=x.device)
    rows = (top[:, None] + steps)[:, None, :, None].expand(-1, x.shape[1], -1, side)
    columns = (left[:, None] + steps)[:, None, None, :].expand(-1, x.shape[1], kept, -1)
    return _resized(x.gather(2, rows).gather(3, columns), side)


def _zoom_in(x: Tensor, strength: float, _: Chance) -> Tensor:
    """The middle of the image, 1 + strength times as large."""
    side = x.shape[-1]
    kept = max(1, round(side / (1 + strength)))
    begin = (side - kept) // 2
    return _resized(x[:, :, begin : begin + kept, begin : begin + kept], side)


def _zoom_out(x: Tensor, strength: float, _: Chance) -> Tensor:
    """The whole image, 1 + strength times as small, in the middle of its mean colour."""
    side = x.shape[-1]
    small = max(1, round(side / (1 + strength)))
    begin = (side - small) // 2
    out = _mean_colour(x).expand_as(x).clone()
    out[:, :, begin : begin + small, begin : begin + small] = _resized(x, small)
    return out


def _hue(x: Tensor, turn: float, chance: Chance) -> Tensor:
    return change_hue(x, _either_way(turn, chance, x))


def _saturation(x: Tensor, strength: float, _: Chance) -> Tensor:
    return change_saturation(x, _factors(1 + strength, x))


def _grey(x: Tensor, share: float, _: Chance) -> Tensor:
    return change_saturation(x, _factors(1 - share, x))


def _brightness(x: Tensor, share: float, chance: Chance) -> Tensor:
    return change_brightness(x, 1 + _either_way(share, chance, x))


def _contrast(x: Tensor, share: float, chance: Chance) -> Tensor:
    """The values nearer to, or further from, the mean luminance of the image; of images of other than three
    channels each channel nearer to its own mean."""
    factors = 1 + _either_way(share, chance, x)
    if x.shape[1] == RGB:
        return change_contrast(x, factors)
    return change_contrast_of_channels(x, factors, colours=False)


def _blur(x: Tensor, percent: float, _: Chance) -> Tensor:
    """PIL's GaussianBlur, with a deviation of so many per cent of the side."""
    radius = float(box_radius(np.array([percent / 100 * x.shape[-1]]))[0])
    return blur(x, _factors(radius, x), reach=max(1, math.ceil(radius)))


def _noise(x: Tensor, deviation: float, chance: Chance) -> Tensor:
    return x.add_(chance.normal(x), alpha=deviation).clamp_(0, 1)


def _occlusion(x: Tensor, share: float, chance: Chance) -> Tensor:
    """A square of the mean colour of the image, anywhere inside it."""
    side = x.shape[-1]
    hidden = max(1, round(side * math.sqrt(share)))
    top, left = _corners(side - hidden, chance, x.device)
    steps = torch.arange(side, device=x.device)
    rows, columns = ((steps >= begin[:, None]) & (steps < begin[:, None] + hidden) for begin in (top, left))
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, _mean_colour(x), x)


TRANSFORMATIONS: dict[str, Change] = {
    "rotation": _rotation,
    "horizontal_mirror": partial(_mirror, dimension=3),
    "vertical_mirror": partial(_mirror, dimension=2),
    "crop": _crop,
    "zoom_in": _zoom_in,
    "zoom_out": _zoom_out,
    "hue": _hue,
    "saturation": _saturation,
    "grey": _grey,
    "brightness": _brightness,
    "contrast": _contrast,
    "blur": _blur,
    "noise": _noise,
    "occlusion": _occlusion,
}
"""By name; each has its scale in SCALES."""
assert list(TRANSFORMATIONS) == list(SCALES)


def _factors(value: float, x: Tensor) -> Tensor:
    """float32[n, 1, 1, 1], all equal."""
    return torch.full((len(x), 1, 1, 1), value, device=x.device)


def _either_way(value: float, chance: Chance, x: Tensor) -> Tensor:
    """float32[n, 1, 1, 1]: plus or minus `value`, by chance."""
    upwards = (chance.uniform(x.device)[:, 0] < 0.5).view(-1, 1, 1, 1)
    return torch.where(upwards, _factors(value, x), _factors(-value, x))


def _corners(room: int, chance: Chance, device: torch.device) -> tuple[Tensor, Tensor]:
    """int64[n] each: top and left of a square that has so many pixels of room either way."""
    u = chance.uniform(device)
    top, left = (u[:, column].mul(room + 1).long().clamp(max=room) for column in (1, 2))
    return top, left


def _mean_colour(x: Tensor) -> Tensor:
    """[n, C, 1, 1]."""
    return x.mean(dim=(2, 3), keepdim=True)


def _resized(x: Tensor, side: int) -> Tensor:
    """x at another side: bilinear, smoothed first where it shrinks."""
    return functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
