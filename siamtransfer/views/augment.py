"""The part of a view that the device makes: colour jitter, grey, blur, solarize and normalise, batched.

What happens to each view is in its row of random parameters (see `random_params.Column`). These are an array
on the CPU. They become lists of rows ("change the contrast of views 3, 8 and 11"), so the CPU never waits for
a value from the device. On the CPU the same code works on so few views at a time that they stay in its cache.

Every operation computes in float32 on values from 0 to 1 what torchvision.transforms.v2.functional computes
on float tensors. On 8-bit images torchvision rounds to whole grey levels after each operation; this code
never does.
The blur is the one of PIL's GaussianBlur, which the published PyTorch recipes use, without its rounding.

Of images of other than three channels the colours are worked on as the first three of x, whatever their place
in the image. Saturation, hue, grey and solarize change these alone.

Legend: n views of S x S pixels, x[n,C,S,S], of which x[:,:3] is RGB where there are colours; a factor is
[n,1,1,1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.views.random_params import NEVER, Column, Grey, Operation
from siamtransfer.views.view_spec import RGB

LUMINANCE = (0.2989, 0.587, 0.114)  # of red, green and blue, as in torchvision
PIXELS_IN_CACHE = 1 << 16  # whose float32 values and intermediates fit the cache of a core, as measured
VIEWS_AT_ONCE = 256  # on a GPU; bounds the memory for intermediate values
BOXES = 3  # box blurs that make up PIL's GaussianBlur
BLOCK = 32  # pixels of a line, at least, that are blurred by one product

Change = Callable[[Tensor, Tensor], Tensor]
RowChange = tuple[Change, np.ndarray, np.ndarray]
"""A change, the rows int64[m] that it changes, and its factors float32[m]."""


@torch.no_grad()
def augment(
    crops: Tensor,
    params: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    rgb: Sequence[int] = RGB,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    at_once: int | None = None,
) -> Tensor:
    """Augments and normalises uint8[N,C,S,S] crops, on any device, by float32[N,P] `params`.

    `mean` and `std` are per channel, for values from 0 to 1. `rgb` are the channels that are red, green and
    blue; empty where none is, and then no row of `params` may ask for an operation on colours. The views are
    computed in groups of `at_once`:
    by default as many as fit the cache of a CPU, or VIEWS_AT_ONCE elsewhere. The grouping changes no value by
    more than the rounding of float32.

    Returns `dtype`[N,C,S,S] on the device of `crops`; the arithmetic is float32 whatever the dtype and
    whatever autocast says. Where TF32 is allowed for matrix products, blurred values carry its rounding,
    about 0.1 of a grey level.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(crops.shape, dtype=dtype, device=crops.device, memory_format=layout)
    if at_once is None:
        in_cache = PIXELS_IN_CACHE // (crops.shape[-1] * crops.shape[-2])
        at_once = max(1, in_cache) if crops.device.type == "cpu" else VIEWS_AT_ONCE
    order = colours_first(crops.shape[1], rgb)
    with torch.autocast(crops.device.type, enabled=False):
        for start in range(0, len(crops), at_once):
            chunk = slice(start, start + at_once)
            x = crops[chunk] if order == sorted(order) else crops[chunk][:, order]
            x = _augment_chunk(x.to(torch.float32).div_(255), params[chunk], colours=len(rgb) > 0)
            for place, channel in enumerate(order):
                torch.div(x[:, place].sub_(mean[channel]), std[channel], out=out[chunk, channel])
    return out


def colours_first(channels: int, rgb: Sequence[int]) -> list[int]:
    """The channels of an image in the order in which they are worked on."""
    return [*rgb, *(channel for channel in range(channels) if channel not in rgb)]


def _augment_chunk(x: Tensor, params: np.ndarray, *, colours: bool) -> Tensor:
    """x[n,C,S,S] changed by params[n,P]; may write into x."""
    plan = list(_plan(params, _changes_for(x.shape[1], colours=colours)))
    if not plan:
        return x
    changes, rows, factors = zip(*plan, strict=True)
    steps = zip(changes, _upload(rows, x.device), _upload(factors, x.device), strict=True)
    for change, chosen, factor in steps:
        factor = factor.view(-1, 1, 1, 1)
        if len(chosen) == len(x):
            x = change(x, factor)
        else:
            x.index_copy_(0, chosen, change(x.index_select(0, chosen), factor))
    return x


def _upload(arrays: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, ...]:
    """The arrays as tensors on the device, by one small asynchronous copy."""
    joined = torch.from_numpy(np.concatenate(arrays)).to(device, non_blocking=True)
    return joined.split([len(array) for array in arrays])


def _plan(params: np.ndarray, changes: Changes) -> Iterator[RowChange]:
    """Every change of params[n,P], in the order of the chain."""

    def step(change: Change, chosen: np.ndarray, values: np.ndarray) -> RowChange:
        rows = chosen.nonzero()[0]
        return change, rows, values[rows]

    grey, sigma, threshold = (params[:, column] for column in (Column.GREY, Column.SIGMA, Column.SOLARIZE))
    if (early := grey == Grey.BEFORE_JITTER).any():
        yield step(changes.grey, early, grey)
    for position in range(Column.ORDER, Column.ORDER + len(changes.jitter)):
        order = params[:, position]
        for operation in sorted({*order.tolist()} - {-1.0}):
            strength = params[:, Column.STRENGTH + int(operation)]
            yield step(changes.jitter[operation], order == operation, strength)
    if (late := grey == Grey.AFTER_JITTER).any():
        yield step(changes.grey, late, grey)
    if (blurred := sigma > 0).any():
        radius = box_radius(sigma)
        yield step(partial(blur, reach=math.ceil(radius.max())), blurred, radius)
    if (solarized := threshold < NEVER).any():
        yield step(changes.solarize, solarized, threshold)


# Each change may write into x and returns the result. `torch.where` and boolean masks are avoided:
# on the CPU they cost ten times as much as arithmetic.


def change_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blends with black: factor 0 is black, 1 changes nothing, above 1 is brighter."""
    return x.mul_(factor).clamp_(0, 1)


def change_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blends with the mean luminance of the whole view."""
    red, green, blue = x.mean(dim=(2, 3), keepdim=True).unbind(1)
    mean = (LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue)[:, None]
    return x.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def change_contrast_of_channels(x: Tensor, factor: Tensor, *, colours: bool) -> Tensor:
    """`change_contrast` of the colours, where there are any; every other channel is blended with its own mean
    over the view."""
    others = x[:, 3:] if colours else x
    mean = others.mean(dim=(2, 3), keepdim=True)
    others.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)
    if colours:
        change_contrast(x[:, :3], factor)
    return x


def _in_colours(change: Change) -> Change:
    """The change of the first three channels alone."""

    def changed(x: Tensor, factor: Tensor) -> Tensor:
        colours = x[:, :3]
        colours.copy_(change(colours, factor))  # nothing is copied where the change wrote into them
        return x

    return changed


def change_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blends with the view in grey."""
    return x.lerp_(_luminance(x)[:, None], 1 - factor).clamp_(0, 1)


def change_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turns the colour circle by `turn` of a full circle, keeping HSV's saturation and value.

    Let V be the largest channel, m the smallest and C = V - m the chroma. The hue h lies on a circle of
    length 6, from -3 to 3 with red at 0: |h| = 1 + (G + B - R - m) / C, and h is negative where blue exceeds
    green (the usual six cases in one). Back again with k(t) = clamp(|t|, 1, 2): R = V + C - C k(h), for red
    falls while |h| goes from 1 to 2; likewise G = V - 2 C + C k(h + 1) and B = V - 2 C + C k(h - 1).
    """
    red, green, blue = x.unbind(1)  # each is overwritten after its last use
    value, low = torch.maximum(red, green), torch.minimum(red, green)
    torch.maximum(value, blue, out=value)
    torch.minimum(low, blue, out=low)
    hue = (green + blue).sub_(red).sub_(low)
    chroma = torch.sub(value, low, out=low).clamp_(min=1e-12)  # not 0, by which grey would be divided
    hue.div_(chroma).add_(1).copysign_(torch.sub(green, blue, out=red)).add_(6 * turn[:, 0])
    hue.sub_(torch.div(hue, 6, out=red).round_(), alpha=6)
    torch.abs(hue, out=red).clamp_(1, 2).sub_(1)
    torch.add(hue, 1, out=green).abs_().clamp_(1, 2)
    torch.sub(hue, 1, out=blue).abs_().clamp_(1, 2)
    torch.addcmul(value, chroma, red, value=-1, out=red)
    base = value.sub_(chroma, alpha=2)
    torch.addcmul(base, chroma, green, out=green)
    torch.addcmul(base, chroma, blue, out=blue)
    return x


def to_grey(x: Tensor, _: Tensor) -> Tensor:
    """Puts the luminance into all three channels."""
    return x.copy_(_luminance(x)[:, None])


def blur(x: Tensor, radius: Tensor, reach: int) -> Tensor:
    """PIL's GaussianBlur: three box blurs each way, with repeated edges.

    A box blur of radius r averages the pixels up to floor(r) away and, with weight r - floor(r), the next
    ones. `reach` is the radius in whole pixels, rounded up, of the widest box. The three boxes together are
    one matrix K, zero outside a narrow band and constant along it except at the edges; the result is K x K^T.
    """
    size, far = x.shape[-1], BOXES * reach
    block = max(BLOCK, far)
    small = min(size, 3 * block)  # this much of K has both edges and the middle that the rest repeats
    kernel = _blur_matrix(radius, reach, small)
    bands = []  # for each block of lines: the lines within reach, and its band of K
    for start in range(0, size, block):
        stop, near = min(start + block, size), slice(max(0, start - far), min(size, start + block + far))
        shift = 0 if start == 0 else small - size if near.stop == size else block - start
        band = kernel[..., start + shift : stop + shift, near.start + shift : near.stop + shift]
        bands.append((near, band))
    x = torch.cat([x[..., near] @ band.mT for near, band in bands], dim=3)
    return torch.cat([band @ x[..., near, :] for near, band in bands], dim=2)


def _blur_matrix(radius: Tensor, reach: int, size: int) -> Tensor:
    """K[n,1,size,size], whose columns are the three box blurs of single pixels."""
    weights = [(radius + 1 - distance).clamp(0, 1).div_(2 * radius + 1) for distance in range(reach + 1)]
    kernel = torch.eye(size, device=radius.device).expand(len(radius), 1, size, size)
    for _ in range(BOXES):
        padded = functional.pad(kernel, (0, 0, reach, reach), mode="replicate")
        kernel = padded.narrow(2, reach, size) * weights[0]
        for distance in range(1, reach + 1):
            above, below = (padded.narrow(2, reach + step, size) for step in (-distance, distance))
            kernel.addcmul_(above + below, weights[distance])
    return kernel


def box_radius(sigma: np.ndarray) -> np.ndarray:
    """The radius of the box whose BOXES-fold blur has the variance sigma**2, float32 like `sigma`.

    Equation 11 and figure 2 of Gwosdek, Grewenig, Bruhn and Weickert (SSVM 2011), which PIL follows.
    """
    variance = sigma.astype(np.float64) ** 2 / BOXES
    floor = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)
    fraction = (2 * floor + 1) * (floor * (floor + 1) - 3 * variance) / (6 * (variance - (floor + 1) ** 2))
    return (floor + fraction).astype(np.float32)


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Inverts the values from `threshold` upwards."""
    bright = torch.ge(x, threshold, out=torch.empty_like(x))
    return x.add_(bright.mul_(1 - 2 * x))


class Changes(NamedTuple):
    """The changes for images of a number of channels; the jitter's by their Operation."""

    jitter: dict[float, Change]
    grey: Change
    solarize: Change


JITTER: dict[float, Change] = {
    Operation.BRIGHTNESS: change_brightness,
    Operation.CONTRAST: change_contrast,
    Operation.SATURATION: change_saturation,
    Operation.HUE: change_hue,
}
_OF_RGB = Changes(JITTER, to_grey, solarize)


def _changes_for(channels: int, *, colours: bool) -> Changes:
    """Those of RGB images; where there are other channels, operations on colours change the first three."""
    if channels == 3 and colours:
        return _OF_RGB
    jitter = JITTER | {Operation.CONTRAST: partial(change_contrast_of_channels, colours=colours)}
    if not colours:
        jitter |= {Operation.SATURATION: _no_colours, Operation.HUE: _no_colours}
        return Changes(jitter, _no_colours, _no_colours)
    jitter |= {kind: _in_colours(JITTER[kind]) for kind in (Operation.SATURATION, Operation.HUE)}
    return Changes(jitter, _in_colours(to_grey), _in_colours(solarize))


def _no_colours(x: Tensor, _: Tensor) -> Tensor:
    raise AssertionError(
        f"an operation on colours is asked for, and none of the {x.shape[1]} channels is one"
    )


def _luminance(x: Tensor) -> Tensor:
    """[n,S,S] from x[n,3,S,S]."""
    red, green, blue = x.unbind(1)
    return (red * LUMINANCE[0]).add_(green, alpha=LUMINANCE[1]).add_(blue, alpha=LUMINANCE[2])
