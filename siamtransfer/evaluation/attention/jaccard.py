"""Masks of attention heads, and how well they cover objects: the Jaccard index of Caron et al. 2021 (DINO).

The published number (arXiv 2104.14294, figure 4; the author's lines are in issue 54 of facebookresearch's
dino): every head of the last block gives a mask, which keeps 60 % of the attention to the patches. For every
object of an image, a class other than the background and the ignored value, the head with the largest Jaccard
index counts. The mean is taken over the objects of an image, then over the images. The best head is so chosen
with the truth at hand, for each object anew. The other numbers here choose less.

Legend: M masks (the heads, then the mean of the heads), K objects, P patches, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamtransfer.metrics.intervals import half_width

Void = Literal["background", "left-out"]


def keep_mass(attention: Tensor, mass: float) -> Tensor:
    """bool[..., P]: the patches of the largest attention[..., P] that hold the share `mass` of its sum.

    As many of the smallest are left out as together hold at most 1 - mass. Attention of zeros keeps nothing.
    """
    values, order = attention.double().sort(dim=-1, stable=True)
    kept = values.cumsum(dim=-1) > (1 - mass) * values.sum(dim=-1, keepdim=True)
    return torch.zeros_like(kept).scatter(-1, order, kept)


def head_masks(attention: Tensor, mass: float) -> Tensor:
    """bool[M, h, w] of attention[heads, h, w]: a mask for each head, then that of the mean of the heads, each
    of which counts alike."""
    share = attention.double() / attention.double().sum(dim=(1, 2), keepdim=True).clamp_min(1e-300)
    maps = torch.cat([share, share.mean(dim=0, keepdim=True)])
    return keep_mass(maps.flatten(1), mass).reshape(maps.shape)


def enlarge(masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """[..., height, width] of masks[..., h, w]: every pixel takes the value of the patch that its centre lies
    in."""
    rows = ((np.arange(height) + 0.5) * masks.shape[-2] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * masks.shape[-1] / width).astype(int)
    return masks[..., rows[:, None], columns]


class ImageJaccard(NamedTuple):
    """The Jaccard indices of an image, from 0 to 1.

    Attributes:
        objects: float64[M, K], of every mask and object; K may be 0.
        foreground: float64[M], with all objects as one; None where the image has none.
    """

    objects: np.ndarray
    foreground: np.ndarray | None


def jaccard(
    masks: np.ndarray, truth: np.ndarray, ignore: int, background: int | None, void: Void
) -> ImageJaccard:
    """Compares masks bool[M, H, W] with the classes of truth[H, W].

    `background` is the class that is no object; None where every class is one. Pixels of the value `ignore`
    are no object; with `void` left-out they count nowhere.
    """
    counted = truth != ignore
    present = [int(value) for value in np.unique(truth[counted]) if value != background]
    if not present:
        return ImageJaccard(np.zeros((len(masks), 0)), None)
    flat = masks.reshape(len(masks), -1)
    areas = flat[:, counted.ravel()].sum(axis=1) if void == "left-out" else flat.sum(axis=1)
    values = truth.ravel()
    inside = np.stack([flat[:, values == value].sum(axis=1) for value in present], axis=1)
    sizes = np.array([(values == value).sum() for value in present])
    objects = inside / (areas[:, None] + sizes - inside)
    common = inside.sum(axis=1)
    return ImageJaccard(objects, common / (areas + sizes.sum() - common))


@dataclass
class JaccardScores:
    """The Jaccard indices of a set of images.

    Attributes:
        has_background: whether a class is the background. Without one the foreground is all that is labelled,
            which says nothing, so that only numbers of single objects are given.
        best_per_object: of every image with objects, the mean over its objects of the best head.
        foreground: of the same images float64[M].
        empty: number of images without an object.
        objects: number of objects.
    """

    has_background: bool
    best_per_object: list[float] = field(default_factory=list)
    foreground: list[np.ndarray] = field(default_factory=list)
    empty: int = 0
    objects: int = 0

    def add(self, image: ImageJaccard) -> None:
        """Takes in an image."""
        if image.foreground is None:
            self.empty += 1
            return
        self.objects += image.objects.shape[1]
        self.best_per_object.append(float(image.objects[:-1].max(axis=0).mean()))
        self.foreground.append(image.foreground)

    def metrics(self) -> dict[str, float]:
        """Numbers in percent, with half the width of a 95 % interval over the images (ci95) where there are
        two; empty where no image has an object.

        `jaccard/best-head-of-object` is the published number. `jaccard/foreground/…` takes all objects as
        one: `best-head-of-image` chooses a head for each image, `best-head-of-set` the one head that is best
        on average over these very images, `mean-of-heads` chooses nothing.
        """
        if not self.foreground:
            return {}
        found = _with_interval("jaccard/best-head-of-object", np.array(self.best_per_object))
        if not self.has_background:
            return found
        values = np.stack(self.foreground)
        heads = values[:, :-1]
        best = self.best_head
        assert best is not None
        found |= _with_interval("jaccard/foreground/best-head-of-image", heads.max(axis=1))
        found |= _with_interval("jaccard/foreground/best-head-of-set", heads[:, best - 1])
        found["jaccard/foreground/best-head-of-set/head"] = float(best)
        found |= _with_interval("jaccard/foreground/mean-of-heads", values[:, -1])
        means = 100 * heads.mean(axis=0)
        return found | {f"jaccard/foreground/head={n}": float(mean) for n, mean in enumerate(means, 1)}

    @property
    def best_head(self) -> int | None:
        """The number, from 1, of the head that is best on average on the foreground; None without images."""
        if not self.foreground or not self.has_background:
            return None
        return int(np.stack(self.foreground)[:, :-1].mean(axis=0).argmax()) + 1


def _with_interval(name: str, values: np.ndarray) -> dict[str, float]:
    found = {name: 100 * float(values.mean())}
    return found if len(values) < 2 else found | {f"{name}/ci95": 100 * half_width(values)}
