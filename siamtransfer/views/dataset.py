"""From sample keys to views: the data set that workers run, the batch they return, and its augmentation.

A worker decodes an image once, crops all its views in 8 bits and passes the random parameters along; the
process that trains augments them on its device.

Legend: B samples in a batch, C channels, V views a sample, P parameters a view (`random_params.Column`), S_v
the side of view v.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from siamtransfer.views.augment import augment
from siamtransfer.views.crop import crop
from siamtransfer.views.fused import augment_fused
from siamtransfer.views.mixing import MixParams, mix_views, sample_mix
from siamtransfer.views.random_params import COLUMNS, sample_params
from siamtransfer.views.sampler import SampleKey
from siamtransfer.views.view_spec import Recipe

Failure = tuple[str, str]
"""(where, why) of an image that could not be read."""

Read = Callable[[int], tuple[np.ndarray, list[Failure]]]
"""Image index to uint8[H,W,C], and the failures on the way if another image had to replace it."""

Painting = Literal["exact", "fused", "compiled"]
"""An implementation of the augmentation."""

DECODED_AT_ONCE = 8  # images held decoded, so that large photographs do not fill a worker's memory


@dataclass(frozen=True)
class ViewBatch:
    """The views of B samples after the crop and before the augmentation.

    Attributes:
        crops: for each view, uint8[B,C,S_v,S_v].
        params: float32[B,V,P], the random parameters of the augmentation; they stay on the CPU.
        index: int64[B], the image of each sample key, even where another image replaced it.
        unreadable: the failures in the order of the sample keys; empty as a rule.
        mix: the random parameters of mixing, where the recipe mixes.
    """

    crops: list[Tensor]
    params: np.ndarray
    index: Tensor
    unreadable: list[Failure]
    mix: MixParams | None = None

    def __len__(self) -> int:
        return len(self.index)

    def pin_memory(self) -> ViewBatch:
        """The same batch with crops in pinned memory, from which a GPU copies by itself; DataLoader calls
        this."""
        return replace(self, crops=[crops.pin_memory() for crops in self.crops])


class ViewSet(Dataset[ViewBatch]):
    """Views of `length` images by `recipe`; a sample depends on its key and `seed` alone.

    For a DataLoader with a batch sampler of sample keys and `collate_fn=identity_collate`: its fetcher calls
    `__getitems__` with all keys of a batch.
    """

    def __init__(self, read: Read, recipe: Recipe, seed: int, length: int):
        self.read, self.recipe, self.seed, self.length = read, recipe, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, sample_key: SampleKey) -> ViewBatch:
        return self.__getitems__([sample_key])

    def __getitems__(self, sample_keys: Sequence[SampleKey]) -> ViewBatch:
        views, channels = self.recipe.views, self.recipe.channels
        crops = [
            torch.empty(len(sample_keys), channels, view.size, view.size, dtype=torch.uint8) for view in views
        ]
        epochs, indices = np.array(sample_keys, np.int64).reshape(-1, 2).T
        augmentations = [np.empty((0, len(views), COLUMNS), np.float32)]  # a rank's batch may be empty
        unreadable: list[Failure] = []
        for start in range(0, len(sample_keys), DECODED_AT_ONCE):
            chunk = slice(start, start + DECODED_AT_ONCE)
            images = []
            for index in indices[chunk].tolist():
                image, failures = self.read(index)
                images.append(image)
                unreadable += failures
            sizes = np.array([image.shape[:2] for image in images])
            params = sample_params(self.recipe, self.seed, epochs[chunk], indices[chunk], sizes)
            augmentations.append(params.augmentation)
            for n, image in enumerate(images):
                for v, view in enumerate(views):
                    out = crops[v][start + n]
                    crop(image, params.box[n, v], view.size, view.interpolation, params.flip[n, v], out)
        mix = sample_mix(self.recipe, self.seed, epochs, indices)
        index = torch.from_numpy(indices.copy())
        return ViewBatch(crops, np.concatenate(augmentations), index, unreadable, mix)


def identity_collate(batch: Any) -> Any:
    """The collate function of a DataLoader over a ViewSet, which makes whole batches itself."""
    return batch


def augment_batch(
    batch: ViewBatch,
    recipe: Recipe,
    device: torch.device | str = "cpu",
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    painting: Painting = "exact",
) -> list[Tensor]:
    """Moves a batch to `device` and augments it: for each view, `dtype`[B,C,S_v,S_v], normalised.

    Views of one size are augmented together. `painting` chooses the implementation: `augment.augment` (exact)
    or `fused.augment_fused`, as it is or compiled; they are equal to the rounding of float32.
    """
    paint = augment if painting == "exact" else partial(augment_fused, compiled=painting == "compiled")
    augmented: dict[int, Tensor] = {}
    sizes = [view.size for view in recipe.views]
    for size in dict.fromkeys(sizes):
        members = [v for v, view_size in enumerate(sizes) if view_size == size]
        crops = torch.cat([batch.crops[v].to(device, non_blocking=True) for v in members])
        params = np.concatenate([batch.params[:, v] for v in members])
        views = paint(
            crops,
            params,
            recipe.mean,
            recipe.std,
            rgb=recipe.rgb,
            dtype=dtype,
            channels_last=channels_last,
        )
        augmented |= dict(zip(members, views.split(len(batch)), strict=True))
    return [augmented[v] for v in range(len(sizes))]


def training_views(
    batch: ViewBatch, recipe: Recipe, device: torch.device | str = "cpu", **how: Any
) -> list[Tensor]:
    """What a method is given in training: the views as `augment_batch` makes them, and, where the recipe
    mixes, the mixed views and their shares after them (`mixing.mix_views`)."""
    views = augment_batch(batch, recipe, device, **how)
    if recipe.mix is None:
        return views
    assert batch.mix is not None, "the batch comes from another recipe"
    return [*views, *mix_views(views, batch.mix, recipe.mix.kind)]
