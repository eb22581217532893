"""Features of several augmented views of the same image, from a frozen backbone.

The views are cropped and augmented as in pretraining. Their random parameters are a hash of (seed, EPOCH,
index of the image, number of the view): the same with any number of workers, ranks and images, and the first
views do not change if there are more.

Legend: n images, q views of each, D features.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.data.readers import StrictReader
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.extract import Images
from siamtransfer.metering.meter import ImageClock
from siamtransfer.utils.errors import UserError
from siamtransfer.views.dataset import SampleKey, ViewSet, augment_batch
from siamtransfer.views.loading import build_loader
from siamtransfer.views.view_spec import Recipe

EPOCH = -1  # of no training, so that a network trained with the same seed has not seen these views


def repeat_view(recipe: Recipe, views: int) -> Recipe:
    """A recipe of `views` views, each sampled like the first view of `recipe`."""
    return replace(recipe, views=recipe.views[:1] * views)


def view_features(
    backbone: nn.Module,
    images: Images,
    recipe: Recipe,
    runtime: Runtime,
    *,
    seed: int = 0,
    indices: np.ndarray | None = None,
    batch: int = 256,
    workers: int = 0,
) -> Tensor:
    """h of every view that `recipe` makes of an image, float32[n, q, D] on the CPU, the same on every rank.

    The images are those of `indices` int64[n], in that order (None: all, in the set's order); the views must
    be of one size (see `repeat_view`). About `batch` views go through the backbone at once. It runs in
    eval mode and returns to its former mode. With several ranks each takes every world_size-th image.

    Raises:
        UnreadableImage: evaluation stops at a bad image and names it, on every rank.
        UserError: a feature is not finite.
    """
    chosen = np.arange(len(images)) if indices is None else indices
    local_indices, q = chosen[runtime.rank :: runtime.world_size].tolist(), len(recipe.views)
    images_at_once = max(1, batch // q)
    sample_keys: list[list[SampleKey]] = [
        [(EPOCH, index) for index in local_indices[start : start + images_at_once]]
        for start in range(0, len(local_indices), images_at_once)
    ]
    loader = build_loader(
        ViewSet(StrictReader(images), recipe, seed, len(images)),
        sample_keys,
        workers=workers,
        pin_memory=runtime.device.type == "cuda",
    )
    was_training = backbone.training
    backbone.eval()
    batches = []
    try:
        with torch.inference_mode(), collectives.own_pace("extracting features of views"):
            clock = ImageClock()
            for views in loader:
                x = torch.cat(augment_batch(views, recipe, runtime.device, channels_last=True))
                with runtime.autocast():
                    h = backbone(x).float()
                batches.append(h.view(q, len(views), -1).transpose(0, 1).flatten(1).cpu())
                clock.count(q * len(views))
    finally:
        backbone.train(was_training)
    features = collectives.all_gather_rows(
        torch.cat(batches) if batches else None, len(chosen), runtime.device
    )
    if not bool(torch.isfinite(features).all()):
        raise UserError(
            f"the backbone gives features that are not finite for views by {recipe.name}: its weights are "
            f"damaged, or {runtime.precision} is too narrow for it (try --precision float32)"
        )
    return features.view(len(chosen), q, -1)
