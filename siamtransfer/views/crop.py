"""The part of a view that workers make: crop, antialiased resize and flip, all in 8 bits.

Legend: an image is uint8[H,W,C], a view uint8[C,S,S]. The resize is torch's antialiased one for uint8: it
equals torchvision's (transforms.v2) bit for bit, and PIL's within one grey level where PIL resizes
horizontally first, too (bicubic values that overshoot black or white are clipped in between; Pillow 13
chooses the order).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.views.view_spec import Interpolation

LONGEST = 20  # long side / short side; a longer image is cropped before the resize, or it would become huge


def crop(
    image: np.ndarray,
    box: np.ndarray,
    size: int,
    interpolation: Interpolation = "bilinear",
    flip: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Crops `box` (top, left, height, width in pixels), resizes it to `size` and flips it if `flip`.

    Returns uint8[C,size,size], which is `out` (contiguous) if there is one.
    """
    top, left, height, width = (int(side) for side in box)
    view = _resize(image[top : top + height, left : left + width], size, size, interpolation)
    if out is None:
        out = torch.empty(image.shape[2], size, size, dtype=torch.uint8)
    np.copyto(out.numpy(), (view[:, ::-1] if flip else view).transpose(2, 0, 1))
    return out


def centre_crop(
    image: np.ndarray, resize: int | None, size: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """The evaluation transform: the shorter side resized to `resize`, then the central square of side `size`.

    With `resize` None the image keeps its size. An image whose shorter side is then below `size` is resized
    up to `size`, where torchvision would add a black border. An image over LONGEST times as long as wide
    (torchvision would resize all of it) is first reduced to its middle.

    Returns uint8[C,size,size].
    """
    height, width = image.shape[:2]
    longest = LONGEST * min(height, width)
    image = _middle(image, min(height, longest), min(width, longest))
    height, width = image.shape[:2]
    short = max(size, min(height, width) if resize is None else resize)
    if height <= width:
        image = _resize(image, short, int(short * width / height), interpolation)
    else:
        image = _resize(image, int(short * height / width), short, interpolation)
    return torch.from_numpy(_middle(image, size, size).transpose(2, 0, 1).copy())


def _middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The central part, rounded to even as torchvision's CenterCrop does."""
    top, left = (round((old - new) / 2) for old, new in zip(image.shape, (height, width), strict=False))
    return image[top : top + height, left : left + width]


def _resize(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """uint8[height,width,C] from uint8[H,W,C]."""
    if image.shape[:2] == (height, width):
        return image
    # torch's vectorised kernel needs a channels-last tensor. The copy makes it contiguous, and also works for
    # read-only arrays, of which torch cannot make a tensor.
    batch = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)[None]
    resized = functional.interpolate(batch, size=(height, width), mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
