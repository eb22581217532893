"""Cutting views out of an image, on the worker's side: crop, antialiased resize, flip; all in 8 bits.

Legend: an image is uint8[H,W,3], a view uint8[3,S,S]. The resize is torch's antialiased one for uint8: it
equals torchvision's (transforms.v2) bit for bit, and PIL's within one grey level where PIL, too, does the
horizontal direction first (bicubic values that overshoot black or white are clipped in between; Pillow 13
chooses the order).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.views.recipes import Interpolation

LONGEST = 20  # sides; a longer image is shortened before it is resized, for its other side may be one pixel


def cut(
    image: np.ndarray,
    box: np.ndarray,
    size: int,
    interpolation: Interpolation = "bilinear",
    flip: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Crops `box` (top, left, height, width in pixels), resizes it to `size` and perhaps flips it.

    Returns uint8[3,size,size], which is `out` (contiguous) where that is given.
    """
    top, left, height, width = (int(side) for side in box)
    view = _resize(image[top : top + height, left : left + width], size, size, interpolation)
    if out is None:
        out = torch.empty(3, size, size, dtype=torch.uint8)
    np.copyto(out.numpy(), (view[:, ::-1] if flip else view).transpose(2, 0, 1))
    return out


def centre(
    image: np.ndarray, resize: int | None, crop: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """The evaluation transform: the shorter side resized to `resize`, then the central square of side `crop`.

    With `resize` None the image keeps its size. An image whose shorter side is then below `crop` is resized
    up until it is `crop`, where torchvision would add a black border. An image over LONGEST times as long as
    wide (torchvision would resize all of it) is first reduced to its middle.

    Returns uint8[3,crop,crop].
    """
    height, width = image.shape[:2]
    longest = LONGEST * min(height, width)
    image = _middle(image, min(height, longest), min(width, longest))
    height, width = image.shape[:2]
    short = max(crop, min(height, width) if resize is None else resize)
    if height <= width:
        image = _resize(image, short, int(short * width / height), interpolation)
    else:
        image = _resize(image, int(short * height / width), short, interpolation)
    return torch.from_numpy(_middle(image, crop, crop).transpose(2, 0, 1).copy())


def _middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The central part, rounded to even as torchvision's CenterCrop does."""
    top, left = (round((have - want) / 2) for have, want in zip(image.shape, (height, width), strict=False))
    return image[top : top + height, left : left + width]


def _resize(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """uint8[height,width,3] from uint8[H,W,3]."""
    if image.shape[:2] == (height, width):
        return image
    # A channels-last tensor is what torch's vectorised kernel wants; the copy makes it contiguous (and
    # spares read-only arrays, of which torch cannot make a tensor).
    batch = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)[None]
    resized = functional.interpolate(batch, size=(height, width), mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
