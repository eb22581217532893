"""Views of two images mixed on the device: CutMix and mixup, and the share that each image has.

The random numbers are a function of (seed, epoch, sample index, view), as all those of the views; the other
image is the row's partner (`utils.partners`). So a mixed view is the same in a resumed run, with any
number of workers, and on any number of ranks and micro-batches of an even number of images.

Legend: N samples, V views, S the side of a view, λ the share of the image itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from siamtransfer.utils.partners import partners
from siamtransfer.views.mix_spec import Mix, MixKind
from siamtransfer.views.random_params import MixSlot, uniforms
from siamtransfer.views.view_spec import Recipe, ViewSpec


@dataclass(frozen=True)
class MixParams:
    """The random parameters of mixing N samples with V views each.

    Attributes:
        share: float32[N,V], λ; 1 for a view that is not mixed. Of CutMix it is 1 minus the box's area, in
            pixels, divided by the view's.
        box: int32[N,V,4], top, left, bottom and right of the pasted box in pixels of the view; empty where
            nothing is pasted, and zeros for mixup.
    """

    share: np.ndarray
    box: np.ndarray


def sample_mix(recipe: Recipe, seed: int, epochs: int | np.ndarray, indices: np.ndarray) -> MixParams | None:
    """Samples the mixing of every view of N samples, int64[N]; None for a recipe that does not mix."""
    if recipe.mix is None:
        return None
    mix = recipe.mix
    uniform = uniforms(seed, epochs, indices, len(recipe.views), tuple(MixSlot))
    columns = dict(zip(MixSlot, np.moveaxis(uniform, 2, 0), strict=True))
    drawn = _shares(mix, columns)
    if mix.kind == "mixup":
        return MixParams(drawn.astype(np.float32), np.zeros((*drawn.shape, 4), np.int32))
    box = np.stack([_boxes(view, drawn[:, v], columns, v) for v, view in enumerate(recipe.views)], axis=1)
    area = (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]).astype(np.float64)
    whole = np.array([view.size**2 for view in recipe.views])
    return MixParams((1 - area / whole).astype(np.float32), box)


def _shares(mix: Mix, columns: dict[MixSlot, np.ndarray]) -> np.ndarray:
    """float64[N,V], λ from Beta(α, α) by its quantiles; 1 where a view is not mixed."""
    from scipy.special import betaincinv  # not at the start of every run

    drawn = betaincinv(mix.alpha, mix.alpha, columns[MixSlot.SHARE])
    return np.where(columns[MixSlot.MIXED] < mix.p, drawn, 1.0)


def _boxes(view: ViewSpec, share: np.ndarray, columns: dict[MixSlot, np.ndarray], number: int) -> np.ndarray:
    """int32[N,4]: as published, a square of the fraction 1 - λ of the view around a uniform pixel, without
    what lies outside of the view."""
    side = np.floor(view.size * np.sqrt(1 - share))
    corners = []
    for slot in (MixSlot.TOP, MixSlot.LEFT):
        near = np.floor(columns[slot][:, number] * view.size) - side // 2
        corners.append(np.clip([near, near + side], 0, view.size))
    (top, bottom), (left, right) = corners
    return np.stack([top, left, bottom, right], axis=1).astype(np.int32)


@torch.no_grad()
def mix_views(views: list[Tensor], params: MixParams, kind: MixKind) -> list[Tensor]:
    """The V mixed views, each like [N,C,S,S] of `views`, and then the shares float32[N,V] on their device.

    View v of a row gets a part of view v of its partner; `views` themselves stay as they are.
    """
    device = views[0].device
    share = torch.from_numpy(params.share).to(device)
    box = torch.from_numpy(params.box).to(device)
    other = partners(len(share), device)
    mixed = []
    for v, view in enumerate(views):
        out = torch.empty_like(view)
        if kind == "mixup":
            weight = share[:, v, None, None, None].to(view.dtype)
            torch.lerp(view[other], view, weight, out=out)
        else:
            torch.where(_inside(box[:, v], view.shape[-1]), view[other], view, out=out)
        mixed.append(out)
    return [*mixed, share]


def _inside(box: Tensor, side: int) -> Tensor:
    """bool[N,1,S,S], whether each pixel lies in int32[N,4] top, left, bottom and right."""
    pixels = torch.arange(side, device=box.device)
    top, left, bottom, right = (edge[:, None] for edge in box.unbind(1))
    rows, columns = (pixels >= top) & (pixels < bottom), (pixels >= left) & (pixels < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
