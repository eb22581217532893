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
        whole: with all objects as one, of the mask that is the whole image.
    """

    objects: np.ndarray
    foreground: np.ndarray | None
    whole: float = 0.0


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
    everything = int(counted.sum()) if void == "left-out" else truth.size
    foreground = common / (areas + sizes.sum() - common)
    return ImageJaccard(objects, foreground, float(sizes.sum() / everything))


@dataclass
class JaccardScores:
    """The Jaccard indices of a set of images.

    Attributes:
        has_background: whether a class is the background. Without one the foreground is all that is labelled,
            which says nothing, so that only numbers of single objects are given.
        images: the numbers of the images with objects.
        best_per_object: of each of them, the mean over its objects of the best head.
        foreground: of each of them float64[M].
        whole: of each of them the Jaccard index of the whole image.
        empty: number of images without an object.
        objects: number of objects.
    """

    has_background: bool
    images: list[int] = field(default_factory=list)
    best_per_object: list[float] = field(default_factory=list)
    foreground: list[np.ndarray] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    empty: int = 0
    objects: int = 0

    def add(self, number: int, image: ImageJaccard) -> None:
        """Takes in the image with this number in the set."""
        if image.foreground is None:
            self.empty += 1
            return
        self.objects += image.objects.shape[1]
        self.images.append(number)
        self.whole.append(image.whole)
        self.best_per_object.append(float(image.objects[:-1].max(axis=0).mean()))
        self.foreground.append(image.foreground)

    def metrics(self) -> dict[str, float]:
        """Numbers in percent, with half the width of a 95 % interval over the images (ci95) where there are
        two; empty where no image has an object.

        `jaccard/NAME` is the mean over the images of `by_image()`, `jaccard/foreground/head=N` that of a
        head, and `…/best-head-of-set/head` the number of the best one.
        """
        found: dict[str, float] = {}
        for name, values in self.by_image().items():
            found |= _with_interval(f"jaccard/{name}", values)
        best = self.best_head
        if best is not None:
            found["jaccard/foreground/best-head-of-set/head"] = float(best)
            means = 100 * np.stack(self.foreground)[:, :-1].mean(axis=0)
            found |= {f"jaccard/foreground/head={n}": float(mean) for n, mean in enumerate(means, 1)}
        return found

    def by_image(self) -> dict[str, np.ndarray]:
        """The values of every image with objects, float64[N] from 0 to 1, by name; empty without such.

        `best-head-of-object` is the published number. `foreground/…` takes all objects as one:
        `best-head-of-image` chooses a head for each image, `best-head-of-set` the one head that is best on
        average over these very images, `mean-of-heads` chooses nothing, `whole-image` is a mask of
        everything, which needs no network.
        """
        if not self.foreground:
            return {}
        found = {"best-head-of-object": np.array(self.best_per_object)}
        best = self.best_head
        if best is None:
            return found
        values = np.stack(self.foreground)
        return found | {
            "foreground/best-head-of-image": values[:, :-1].max(axis=1),
            "foreground/best-head-of-set": values[:, best - 1],
            "foreground/mean-of-heads": values[:, -1],
            "foreground/whole-image": np.array(self.whole),
        }

    @property
    def best_head(self) -> int | None:
        """The number, from 1, of the head that is best on average on the foreground; None without images."""
        if not self.foreground or not self.has_background:
            return None
        return int(np.stack(self.foreground)[:, :-1].mean(axis=0).argmax()) + 1


def _with_interval(name: str, values: np.ndarray) -> dict[str, float]:
    found = {name: 100 * float(values.mean())}
    return found if len(values) < 2 else found | {f"{name}/ci95": 100 * half_width(values)}
