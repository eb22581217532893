"""The training of the probe with bins: frozen features of augmented batches, AdamW on one linear layer.

Differences from the public program: images are resized to a multiple of the patch and not padded; a second
loss, of gradients, is left out, since it takes its differences along the axes of images and channels and is
0 for two images a GPU, as they were published.

Legend: b images, H and W pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.backbones.feature_maps import FeatureMaps, fixed_size
from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.evaluation.dense.input_size import InputSize, to_input
from siamtransfer.evaluation.dense.model import DenseModel
from siamtransfer.evaluation.depth.augment import NYU_CROP, DepthRecipe
from siamtransfer.evaluation.depth.bins import BinsHead, BinsProbe, scale_invariant_loss
from siamtransfer.evaluation.depth.config import EIGEN_SETS, DepthConfig
from siamtransfer.evaluation.depth.data.depth_images import DepthImages, read_pair
from siamtransfer.metrics.depth import DepthRange
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

GROUP = 2
"""Images whose pixels share a variance in the loss: the images of one GPU of the published runs."""
LOSS_WARM_UP = 100
"""Steps without the variance in the loss."""
WARM_UP_SHARE = 1 / 3
"""Of the steps in which the rate rises (12,800 of 38,400), from WARM_UP_FROM of it."""
WARM_UP_FROM = 0.001
CLIP_NORM = 35.0
BETAS = (0.9, 0.999)
_PROGRESS_SECONDS = 10.0
_MOST_THREADS = 8


def rate_at(step: int, steps: int, lr: float) -> float:
    """The learning rate of a step from 0: a cosine over all steps, times a linear rise over the first
    third."""
    share = 0.5 * (1 + math.cos(math.pi * step / steps))
    warm = steps * WARM_UP_SHARE
    if step < warm:
        share *= 1 - (1 - step / warm) * (1 - WARM_UP_FROM)
    return lr * share


def train_bins(model: DenseModel, images: DepthImages, depths: DepthRange, config: DepthConfig) -> BinsProbe:
    """Trains the head.

    Raises:
        UserError: an image cannot be read, the images have several sizes and no crop is given, or the loss is
            no longer finite.
    """
    nyu = config.data.name in EIGEN_SETS
    crop = tuple(config.crop) if config.crop else (NYU_CROP if nyu else None)
    recipe = DepthRecipe(crop if config.augment else None, nyu, config.augment)  # type: ignore[arg-type]
    only = isinstance(model.part, FeatureMaps) and fixed_size(model.part.backbone) is not None
    batches = Batches(images, recipe, model.size, config.batch_size, config.seed, only)
    device = model.runtime.device
    head: BinsHead | None = None
    optimizer: torch.optim.AdamW | None = None
    began = said = time.monotonic()
    for step, (pixels, truth) in enumerate(batches.take(config.steps)):
        maps = model.run(pixels).clone()  # a tensor of inference mode takes no part in a backward pass
        if head is None or optimizer is None:
            head = build_head(maps.shape[1], depths, config).to(device)
            optimizer = torch.optim.AdamW(
                head.parameters(), config.lr, betas=BETAS, weight_decay=config.weight_decay
            )
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, config.steps, config.lr)
        loss = batch_loss(head(maps), truth.to(device), depths, warm_up=step < LOSS_WARM_UP)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(f"the loss of bins is not finite in step {step}: lower --lr, {config.lr:g}")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP_NORM)
        optimizer.step()
        if time.monotonic() - said > _PROGRESS_SECONDS:
            said = time.monotonic()
            left = (said - began) / (step + 1) * (config.steps - step - 1)
            say(f"bins: step {step + 1:,} of {config.steps:,}, loss {value:.4f}, {left:.0f} s left")
    assert head is not None
    return BinsProbe(head.eval(), _protocol(config, crop))


def build_head(dim: int, depths: DepthRange, config: DepthConfig) -> BinsHead:
    """A new head; its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return BinsHead(dim, config.bins, depths, config.upsample)


def batch_loss(predicted: Tensor, truth: Tensor, depths: DepthRange, *, warm_up: bool) -> Tensor:
    """The mean over groups of GROUP images of the loss at the size of the depth maps, truth[b, H, W]."""
    enlarged = functional.interpolate(
        predicted[:, None], size=truth.shape[1:], mode="bilinear", align_corners=False
    )[:, 0]
    counted = (truth > 0) & (truth <= depths.high)
    losses = [
        scale_invariant_loss(
            enlarged[first : first + GROUP],
            truth[first : first + GROUP],
            counted[first : first + GROUP],
            warm_up=warm_up,
        )
        for first in range(0, len(truth), GROUP)
    ]
    return torch.stack(losses).mean()


def _protocol(config: DepthConfig, crop: tuple[int, ...] | None) -> dict[str, Any]:
    return {
        "regression": "linear layer to bins, uniform; linear normalisation of rectified logits plus 0.1",
        "bins": config.bins,
        "upsample": config.upsample,
        "loss": f"scale-invariant logarithmic, root, over {GROUP} images; no loss of gradients",
        "optimizer": "AdamW",
        "steps": config.steps,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "augmented": config.augment,
        "train_crop": list(crop) if crop and config.augment else None,
    }


@dataclass(frozen=True)
class Batches:
    """Augmented batches of a set; those of a step depend on the seed and its number alone.

    Attributes:
        size: of whole images in front of the network; crops are scaled by the same factor.
        one_size: whether the network takes images of that size only, and crops are scaled to it.
    """

    images: DepthImages
    recipe: DepthRecipe
    size: InputSize
    batch: int
    seed: int
    one_size: bool = False

    def take(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(pixels uint8[b, 3, h, w], depths float32[b, H, W]) of every step; threads read the next batch
        meanwhile."""
        with ThreadPoolExecutor(min(_MOST_THREADS, cpu_count())) as pool:
            ahead = self._submit(pool, 0)
            for step in range(steps):
                current, ahead = ahead, self._submit(pool, step + 1) if step + 1 < steps else []
                pixels, depths = zip(*(future.result() for future in current), strict=True)
                yield _stack(pixels), _stack(depths)

    def _submit(self, pool: ThreadPoolExecutor, step: int) -> list[Future[tuple[Tensor, Tensor]]]:
        places = range(step * self.batch, (step + 1) * self.batch)
        return [pool.submit(self._sample, place) for place in places]

    def _sample(self, place: int) -> tuple[Tensor, Tensor]:
        """The sample at a place of the endless order: every epoch is another permutation of the images."""
        epoch, position = divmod(place, len(self.images))
        index = int(np.random.default_rng([self.seed, epoch]).permutation(len(self.images))[position])
        image, depth = read_pair(self.images, index)
        whole = depth.shape
        generator = np.random.default_rng([self.seed, 1, place])
        image, depth = self.recipe.apply(image, depth, generator, self.images.describe(index))
        size = self._input(whole, depth.shape)
        return to_input(image, size), torch.from_numpy(np.array(depth, np.float32))

    def _input(self, whole: tuple[int, ...], part: tuple[int, ...]) -> tuple[int, int]:
        """The size of a crop of these sides in front of the network."""
        height, width = self.size.of(whole[0], whole[1])
        if self.one_size or (self.recipe.crop is None and part == whole):
            return height, width
        multiple = self.size.multiple
        sides = (
            round(new * cut / old / multiple) * multiple
            for new, cut, old in zip((height, width), part, whole, strict=True)
        )
        h, w = (max(side, multiple) for side in sides)
        return h, w


def _stack(tensors: tuple[Tensor, ...]) -> Tensor:
    shapes = {tuple(tensor.shape[-2:]) for tensor in tensors}
    if len(shapes) > 1:
        (h1, w1), (h2, w2) = sorted(shapes)[:2]
        raise UserError(
            f"the train images have several sizes ({w1} x {h1} and {w2} x {h2} in one batch): give --crop "
            f"HEIGHT WIDTH for the probe bins"
        )
    return torch.stack(tensors)
