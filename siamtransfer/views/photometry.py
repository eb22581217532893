"""Painting views, on the device: colour jitter, grey, blur, solarize and normalise, batched.

What happens to each view is decided before, in its row of numbers (see `draw.Column`). Those stay on the
CPU: here they become lists of rows ("views 3, 8 and 11 get their contrast changed now"), so the device is
never asked for a value and never waited for. On the CPU the same code is given one view at a time, which
fits its cache and needs no lists.

Every operation computes in float32 on values from 0 to 1 what torchvision.transforms.v2.functional computes
on float tensors; torchvision on 8-bit images rounds to whole grey levels after each operation, we never do.
The blur is a true Gaussian with repeated edges; PIL's GaussianBlur approximates one by three box blurs.

Legend: n views of S x S pixels, x[n,3,S,S] in RGB; a factor is [n,1,1,1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from siamtransfer.views.draw import NEVER, Column, Grey, Operation

LUMINANCE = (0.2989, 0.587, 0.114)  # of red, green and blue, as in torchvision
VIEWS_AT_ONCE = 256  # on a GPU; bounds the memory for intermediate values
MIN_REACH = 32  # pixels to either side that a blur may reach, on views so small that 2 S is less
NEGLIGIBLE = 1e-12  # weights of the blur below this are 0: numbers near 1e-40 would slow the CPU down

Change = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def paint(
    crops: Tensor,
    numbers: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    at_once: int | None = None,
) -> Tensor:
    """Paints uint8[N,3,S,S] crops, on any device, by float32[N,P] `numbers`, on the CPU.

    `mean` and `std` are per channel, for values from 0 to 1. `at_once` views are worked on together: by
    default one on the CPU and VIEWS_AT_ONCE elsewhere.

    Returns `dtype`[N,3,S,S] on the device of `crops`; the arithmetic is float32 whatever the dtype and
    whatever autocast says. Where TF32 is allowed for matrix products, blurred values carry its rounding
    (about 0.1 of a grey level).
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(crops.shape, dtype=dtype, device=crops.device, memory_format=layout)
    at_once = at_once or (1 if crops.device.type == "cpu" else VIEWS_AT_ONCE)
    rows = numbers.numpy()
    with torch.autocast(crops.device.type, enabled=False):
        for start in range(0, len(crops), at_once):
            chunk = slice(start, start + at_once)
            x = _paint_chunk(crops[chunk].to(torch.float32).div_(255), rows[chunk])
            for channel in range(3):
                x[:, channel].sub_(mean[channel]).div_(std[channel])
            out[chunk].copy_(x)
    return out


def _paint_chunk(x: Tensor, numbers: np.ndarray) -> Tensor:
    """Changes x[n,3,S,S], and perhaps its memory, by numbers[n,P]."""
    plan = list(_plan(numbers))
    if not plan:
        return x
    lists = [rows for _, rows, _ in plan]
    lengths = [len(rows) for rows in lists]
    all_rows = torch.from_numpy(np.concatenate(lists)).to(x.device, non_blocking=True)
    all_factors = torch.from_numpy(np.concatenate([f for _, _, f in plan])).to(x.device, non_blocking=True)
    steps = zip(plan, all_rows.split(lengths), all_factors.split(lengths), strict=True)
    for (change, _, _), rows, factors in steps:
        factors = factors.view(-1, 1, 1, 1)
        if len(rows) == len(x):
            x = change(x, factors)
        else:
            x.index_copy_(0, rows, change(x.index_select(0, rows), factors))
    return x


def _plan(numbers: np.ndarray) -> Iterator[tuple[Change, np.ndarray, np.ndarray]]:
    """Every change in the order of the chain: what to do, to which rows int64[m], by which float32[m]."""

    def step(
        change: Change, chosen: np.ndarray, column: int
    ) -> Iterator[tuple[Change, np.ndarray, np.ndarray]]:
        rows = np.flatnonzero(chosen)
        if len(rows):
            yield change, rows, numbers[rows, column]

    yield from step(to_grey, numbers[:, Column.GREY] == Grey.BEFORE_JITTER, Column.GREY)
    for place in range(len(Operation)):
        for operation, change in JITTER.items():
            chosen = numbers[:, Column.ORDER + place] == operation
            yield from step(change, chosen, Column.STRENGTH + operation)
    yield from step(to_grey, numbers[:, Column.GREY] == Grey.AFTER_JITTER, Column.GREY)
    yield from step(blur, numbers[:, Column.SIGMA] > 0, Column.SIGMA)
    yield from step(solarize, numbers[:, Column.SOLARIZE] < NEVER, Column.SOLARIZE)


# Each change may use x as its own memory and returns the result. `torch.where` and boolean masks are avoided:
# on the CPU they cost ten times as much as arithmetic.


def change_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blends with black: factor 0 is black, 1 changes nothing, above 1 is brighter."""
    return x.mul_(factor).clamp_(0, 1)


def change_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blends with the mean luminance of the whole view."""
    red, green, blue = x.mean(dim=(2, 3), keepdim=True).unbind(1)
    mean = (LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue)[:, None]
    return x.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def change_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blends with the view in grey."""
    return x.lerp_(_luminance(x)[:, None], 1 - factor).clamp_(0, 1)


def change_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turns the colour circle by `turn` of a full circle, keeping HSV's saturation and value.

    With the largest channel V, the smallest m, the chroma C = V - m and the hue h on a circle of length 6:
    going from red towards green, |h| = 1 + (G + B - R - m) / C, and h is negative where blue exceeds green
    (the formula is the six usual cases in one). Back again, each channel is V - C * clamp(2 - d, 0, 1), where
    d is the way on the circle from h to that channel's complement: cyan 3, magenta 5 or yellow 1.
    """
    red, green, blue = x.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - low
    hue = green + blue
    hue.sub_(red).sub_(low).div_(chroma.clamp(min=1e-12)).add_(1)
    hue = hue.copysign_(green - blue).div_(6).add_(turn[:, 0])
    for channel, complement in ((red, 3 / 6), (green, 5 / 6), (blue, 1 / 6)):
        torch.sub(hue, complement, out=channel)
        channel.sub_(channel.round()).abs_().mul_(-6).add_(2).clamp_(0, 1).mul_(chroma)
        torch.sub(value, channel, out=channel)
    return x


def to_grey(x: Tensor, _: Tensor) -> Tensor:
    """Puts the luminance into all three channels."""
    return x.copy_(_luminance(x)[:, None])


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """A Gaussian blur with repeated edges, as two products with a banded matrix per view: K x K^T."""
    kernel = _blur_matrix(sigma.view(-1, 1), x.shape[-1])[:, None]
    return kernel @ (x @ kernel.mT)


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Inverts the values from `threshold` upwards."""
    bright = torch.ge(x, threshold, out=torch.empty_like(x))
    return x.add_(bright.mul_(1 - 2 * x))


JITTER: dict[Operation, Change] = {
    Operation.BRIGHTNESS: change_brightness,
    Operation.CONTRAST: change_contrast,
    Operation.SATURATION: change_saturation,
    Operation.HUE: change_hue,
}


def _luminance(x: Tensor) -> Tensor:
    """[n,S,S] from x[n,3,S,S]."""
    red, green, blue = x.unbind(1)
    return (red * LUMINANCE[0]).add_(green, alpha=LUMINANCE[1]).add_(blue, alpha=LUMINANCE[2])


def _blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """K[n,S,S] with (K @ column)[i] = the column blurred at i; sigma is [n,1].

    The edge pixels stand for everything beyond them, so their columns also hold the tails of the Gaussian.
    """
    reach = max(2 * size, MIN_REACH)
    offsets = torch.arange(-reach, reach + 1, dtype=sigma.dtype, device=sigma.device)
    weights = (offsets / sigma).square_().mul_(-0.5).exp_()
    weights = torch.threshold_(weights, NEGLIGIBLE, 0.0)
    weights = weights.div_(weights.sum(dim=1, keepdim=True))
    near = weights[:, reach - size + 1 : reach + size]  # offsets from 1 - S to S - 1
    kernel = near.unfold(1, size, 1).flip(1)  # row i holds the offsets from -i to S - 1 - i
    tails = weights.cumsum(dim=1)[:, reach - size : reach]  # weights beyond S, S - 1, … 1 pixels to one side
    kernel[:, :, 0] += tails.flip(1)
    kernel[:, :, -1] += tails
    return kernel
