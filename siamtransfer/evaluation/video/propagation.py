"""Masks handed on from earlier frames to a frame by the similarity of patches.

As in the public program of DINO (eval_video_segmentation.py), which follows Jabri et al. (arXiv 2006.14613):
every patch takes the mean of the shares of the objects at its k nearest patches, weighted by exp(cosine / T).
Those are sought in the first frame and in the last few, all together, within a square around the patch. Only
that square is compared, a tile of patches at a time, so memory does not grow with the square of a frame.

Legend: D features, h and w patches of a frame, n frames of the context, C channels (the background and the
objects), H and W pixels.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

TILE = 8
"""Side in patches of the squares of a frame that are compared at once."""
ENTRIES = 2**24
"""Cosines in memory at once where there is no neighbourhood."""


@dataclass(frozen=True)
class Rule:
    """How masks are propagated; see the options of the same names.

    Attributes:
        neighbourhood: 0 for everywhere.
    """

    context: int = 7
    neighbourhood: int = 12
    topk: int = 5
    temperature: float = 0.1


class Propagator:
    """Follows the objects of one video, a frame at a time."""

    def __init__(self, features: Tensor, shares: Tensor, rule: Rule):
        """Begins with the map float[D, h, w] of the first frame and the shares float[C, h, w] of its patches
        that belong to each channel."""
        self._rule = rule
        self._first = (_unit_rows(features), shares.permute(1, 2, 0))
        self._last: deque[tuple[Tensor, Tensor]] = deque(maxlen=rule.context)

    def next(self, features: Tensor) -> Tensor:
        """float32[C, h, w]: the shares of the patches of the next frame, from its map float[D, h, w]."""
        with torch.inference_mode():
            target = _unit_rows(features)
            keys, values = (torch.stack(part) for part in zip(self._first, *self._last, strict=True))
            shares = propagate(target, keys, values, self._rule)
        self._last.append((target, shares))
        return shares.permute(2, 0, 1)


def propagate(target: Tensor, keys: Tensor, values: Tensor, rule: Rule) -> Tensor:
    """float32[h, w, C]: what patches with features target[h, w, D] take of the shares values[n, h, w, C] of
    patches with features keys[n, h, w, D]; features have length 1.

    Patches that are as near as the k-th nearest all count, as in DINO's program.
    """
    height, width = target.shape[:2]
    result = values.new_empty(height, width, values.shape[-1])
    rows, columns = _tile(height, width, keys, rule)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            here = slice(top, min(top + rows, height)), slice(left, min(left + columns, width))
            result[here] = _propagate_to(target, here, keys, values, rule)
    return result


def _tile(height: int, width: int, keys: Tensor, rule: Rule) -> tuple[int, int]:
    """Rows and columns of a tile."""
    if rule.neighbourhood:
        return TILE, TILE
    return 1, max(1, min(width, ENTRIES // (keys.shape[0] * height * width)))


def _propagate_to(
    target: Tensor, here: tuple[slice, slice], keys: Tensor, values: Tensor, rule: Rule
) -> Tensor:
    """float32[a, b, C]: the shares of a tile of a x b patches."""
    queries = target[here]
    near = tuple(_around(part, limit, rule) for part, limit in zip(here, target.shape[:2], strict=True))
    window = (slice(None), *near)
    cosines = queries.flatten(0, 1) @ keys[window].flatten(0, 2).T
    if rule.neighbourhood:
        inside = _inside(here, near, rule.neighbourhood, target.device)
        cosines = cosines.unflatten(1, (len(keys), -1)).masked_fill_(~inside[:, None], -torch.inf).flatten(1)
    nearest = cosines.topk(min(rule.topk, cosines.shape[1]), dim=1).values
    weights = ((cosines - nearest[:, :1]) / rule.temperature).exp_()
    weights.masked_fill_(cosines < nearest[:, -1:], 0)
    shares = weights @ values[window].flatten(0, 2)
    return (shares / weights.sum(dim=1, keepdim=True)).unflatten(0, queries.shape[:2])


def _around(part: slice, limit: int, rule: Rule) -> slice:
    """The rows (or columns) in the neighbourhood of any of `part`."""
    if not rule.neighbourhood:
        return slice(0, limit)
    return slice(max(0, part.start - rule.neighbourhood), min(limit, part.stop + rule.neighbourhood))


def _inside(here: tuple[slice, slice], near: tuple[slice, ...], reach: int, device: torch.device) -> Tensor:
    """bool[a b, patches of `near`]: whether a patch of `near` is in the square around one of `here`."""
    close = []
    for a, b in zip(here, near, strict=True):
        places, others = (torch.arange(part.start, part.stop, device=device) for part in (a, b))
        close.append((places[:, None] - others).abs() <= reach)
    both = close[0][:, None, :, None] & close[1][None, :, None, :]
    return both.flatten(2).flatten(0, 1)


def _unit_rows(features: Tensor) -> Tensor:
    """float32[h, w, D], each of length 1, of a map [D, h, w]."""
    return functional.normalize(features.float().permute(1, 2, 0), dim=-1).contiguous()


def first_shares(mask: np.ndarray, channels: tuple[int, ...], cells: tuple[int, int]) -> Tensor:
    """float32[C, h, w]: 1 where the pixel at the centre of a patch of `cells` (h, w) has the value of the
    channel in mask[H, W], else 0."""
    reduced = torch.from_numpy(nearest(mask, cells).copy())
    return torch.stack([(reduced == value).float() for value in channels])


def to_mask(
    shares: Tensor, channels: tuple[int, ...], input_size: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """uint8[H, W]: the value of the largest channel of shares[C, h, w] at each pixel of an image of `size`.

    The shares are enlarged bilinearly to the size of the network's input, each channel is stretched to 0 and
    1, and the largest counts (of equal ones the first); the mask is brought to `size` without interpolation.
    """
    enlarged = functional.interpolate(shares[None], size=input_size, mode="bilinear", align_corners=False)[0]
    low, high = enlarged.amin(dim=(1, 2), keepdim=True), enlarged.amax(dim=(1, 2), keepdim=True)
    stretched = torch.where(high > low, (enlarged - low) / (high - low), enlarged)
    largest = stretched.argmax(dim=0).to("cpu", torch.uint8).numpy()
    return nearest(np.array(channels, np.uint8)[largest], size)


def nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8[h, w]: mask uint8[H, W] at `size` (h, w), every cell with the value at its centre. Pillow decides
    where a centre lies between two pixels, as in DINO's program."""
    height, width = size
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
