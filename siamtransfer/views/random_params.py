"""All random numbers of the views, as a pure function of (seed, epoch, sample index, view).

There is no generator and no state. A sample's numbers are a hash of its key, so they are the same in a
resumed run, with any number of workers or ranks, in any batch, and with any other views in the recipe.

The hash is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) used as a counter: `state + k * GOLDEN` runs
through all 64-bit numbers and a bijective mixer scrambles it. Seed, epoch, index and view are absorbed one
after the other, each with one such step; a last step per slot gives the uniform number of that slot. A new
kind of number takes a new slot and leaves all others as they were.

Legend: N samples, V views, P = COLUMNS numbers of the augmentation on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from siamtransfer.views.view_spec import Recipe, ViewSpec

TRIES = 10  # crops sampled before the centre is taken, as in torchvision's RandomResizedCrop
NEVER = 2.0  # a solarize threshold that no grey level from 0 to 1 reaches


class Slot(IntEnum):
    """The index of each uniform number; of a block of several, the index of the first."""

    AREA = 0  # one for each try
    RATIO = AREA + TRIES  # one for each try
    TOP = RATIO + TRIES
    LEFT = TOP + 1
    FLIP = LEFT + 1
    JITTER = FLIP + 1
    ORDER = JITTER + 1  # four, whose ranking is the order of the jitter
    STRENGTH = ORDER + 4  # four: brightness, contrast, saturation, hue
    GREY = STRENGTH + 4
    BLUR = GREY + 1
    SIGMA = BLUR + 1
    SOLARIZE = SIGMA + 1


SLOTS = Slot.SOLARIZE + 1


class MixSlot(IntEnum):
    """The index of each uniform number of mixing (see `mixing`), far enough to leave room for new slots."""

    MIXED = 64
    SHARE = MIXED + 1
    TOP = SHARE + 1
    LEFT = TOP + 1


class Operation(IntEnum):
    """The operations of the colour jitter, in torchvision's numbering."""

    BRIGHTNESS = 0
    CONTRAST = 1
    SATURATION = 2
    HUE = 3


class Column(IntEnum):
    """The columns of `ViewParams.augmentation`."""

    ORDER = 0  # four columns: the Operation at each position of the jitter, or -1 for none
    STRENGTH = 4  # four columns by Operation: three factors, and the turn of the colour circle
    GREY = 8  # a Grey
    SIGMA = 9  # of the blur in pixels; 0 for none
    SOLARIZE = 10  # grey levels (0 to 1) from here upwards are inverted; NEVER for none


COLUMNS = Column.SOLARIZE + 1


class Grey(IntEnum):
    """Whether, and where in the chain, a view loses its colour."""

    NO = 0
    BEFORE_JITTER = 1
    AFTER_JITTER = 2


@dataclass(frozen=True)
class ViewParams:
    """The random parameters of N samples with V views each.

    Attributes:
        box: int32[N,V,4], the crop's top, left, height and width in pixels of the image.
        flip: bool[N,V].
        augmentation: float32[N,V,P] with the columns of `Column`.
    """

    box: np.ndarray
    flip: np.ndarray
    augmentation: np.ndarray


def sample_params(
    recipe: Recipe, seed: int, epochs: int | np.ndarray, indices: np.ndarray, sizes: np.ndarray
) -> ViewParams:
    """Samples every parameter of every view of N samples.

    `epochs` is one epoch or int64[N], `indices` int64[N], and `sizes` int64[N,2] the images' height and
    width in pixels. Only `box` depends on the sizes.
    """
    uniform = uniforms(seed, epochs, indices, len(recipe.views))
    pairs = list(zip(recipe.views, np.moveaxis(uniform, 1, 0), strict=True))
    return ViewParams(
        box=np.stack([_boxes(spec, u, np.asarray(sizes)) for spec, u in pairs], axis=1),
        flip=np.stack([u[:, Slot.FLIP] < spec.flip_p for spec, u in pairs], axis=1),
        augmentation=np.stack([_augmentation(spec, u) for spec, u in pairs], axis=1),
    )


def uniforms(
    seed: int,
    epochs: int | np.ndarray,
    indices: np.ndarray,
    views: int,
    slots: Sequence[int] = range(SLOTS),
) -> np.ndarray:
    """float64[N,views,slots], uniform in [0, 1) in steps of 2**-53."""
    state = _absorb(np.zeros((1, 1, 1), np.uint64), np.array([seed & _MASK], np.uint64))
    state = _absorb(state, np.asarray(epochs, np.int64).astype(np.uint64).reshape(-1, 1, 1))
    state = _absorb(state, np.asarray(indices, np.int64).astype(np.uint64).reshape(-1, 1, 1))
    state = _absorb(state, np.arange(views, dtype=np.uint64).reshape(1, -1, 1))
    state = _absorb(state, np.array(slots, dtype=np.uint64))
    return (state >> np.uint64(11)) * 2.0**-53


_MASK = 2**64 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _absorb(state: np.ndarray, value: np.ndarray) -> np.ndarray:
    """SplitMix64's output number `value` after `state`; all arithmetic is modulo 2**64."""
    mixed = state + (value + np.uint64(1)) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _boxes(spec: ViewSpec, u: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """int32[N,4]: the distribution of torchvision's RandomResizedCrop.

    Of ten tries (uniform area, log-uniform ratio) the first that fits the image is taken, at a uniform
    position; if none fits, the largest centred crop whose ratio is allowed.
    """
    height, width = (sizes[:, axis].astype(np.float64) for axis in (0, 1))
    low, high = np.log(spec.ratio)
    area = _between(*spec.scale, u[:, Slot.AREA : Slot.AREA + TRIES]) * (height * width)[:, None]
    ratio = np.exp(_between(low, high, u[:, Slot.RATIO : Slot.RATIO + TRIES]))
    tall, wide = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (tall > 0) & (tall <= height[:, None]) & (wide > 0) & (wide <= width[:, None])
    first = fits.argmax(axis=1)[:, None]
    tall, wide = (np.take_along_axis(side, first, axis=1)[:, 0] for side in (tall, wide))
    top = np.floor(u[:, Slot.TOP] * (height - tall + 1))
    left = np.floor(u[:, Slot.LEFT] * (width - wide + 1))
    box = np.stack([top, left, tall, wide], axis=1)

    centre_tall = np.minimum(height, np.rint(width / spec.ratio[0]))
    centre_wide = np.minimum(width, np.rint(height * spec.ratio[1]))
    centre_top, centre_left = (height - centre_tall) // 2, (width - centre_wide) // 2
    centre = np.stack([centre_top, centre_left, centre_tall, centre_wide], axis=1)
    return np.where(fits.any(axis=1)[:, None], box, centre).astype(np.int32)


def _augmentation(spec: ViewSpec, u: np.ndarray) -> np.ndarray:
    """float32[N,P]."""
    numbers = np.empty((len(u), COLUMNS), np.float32)
    order = np.argsort(u[:, Slot.ORDER : Slot.ORDER + 4], axis=1)
    jittered = (u[:, Slot.JITTER] < spec.jitter_p)[:, None] & (np.array(spec.jitter) > 0)[order]
    numbers[:, Column.ORDER : Column.ORDER + 4] = np.where(jittered, order, -1)
    strength = np.array(spec.jitter)
    centre = np.array([1.0, 1.0, 1.0, 0.0])
    lowest = np.maximum(centre - strength, [0.0, 0.0, 0.0, -0.5])
    numbers[:, Column.STRENGTH : Column.STRENGTH + 4] = _between(
        lowest, centre + strength, u[:, Slot.STRENGTH : Slot.STRENGTH + 4]
    )
    grey = Grey.BEFORE_JITTER if spec.grey_first else Grey.AFTER_JITTER
    numbers[:, Column.GREY] = np.where(u[:, Slot.GREY] < spec.grey_p, grey, Grey.NO)
    sigma = _between(*spec.blur_sigma, u[:, Slot.SIGMA])
    numbers[:, Column.SIGMA] = np.where(u[:, Slot.BLUR] < spec.blur_p, sigma, 0.0)
    # A value that would round to the threshold or above is inverted, as on 8-bit images.
    threshold = (spec.solarize_threshold - 0.5) / 255
    numbers[:, Column.SOLARIZE] = np.where(u[:, Slot.SOLARIZE] < spec.solarize_p, threshold, NEVER)
    return numbers


def _between(low: float | np.ndarray, high: float | np.ndarray, u: np.ndarray) -> np.ndarray:
    return low + (high - low) * u
