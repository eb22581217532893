"""The training of the probe with bins: frozen features of augmented batches, AdamW on one linear layer.

Differences from the public program: images are resized to a multiple of the patch and not padded; a second
loss, of gradients, is left out, since it takes its differences along the axes of images and channels and is
0 for two images a GPU, as they were published.

Legend: b images, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.backbones.feature_maps import FeatureMaps, fixed_size
from siamtransfer.evaluation.dense.model import DenseModel
from siamtransfer.evaluation.depth.augment import NYU_CROP, DepthRecipe
from siamtransfer.evaluation.depth.batches import Batches
from siamtransfer.evaluation.depth.bins import BinsHead, BinsProbe, scale_invariant_loss
from siamtransfer.evaluation.depth.config import NYU, DepthConfig
from siamtransfer.evaluation.depth.data.depth_images import DepthImages
from siamtransfer.metrics.depth import DepthRange
from siamtransfer.training.epochs import UPDATE_PROGRESS, train_epochs
from siamtransfer.training.guard import StepContext, StepReport, check_finite, step_report
from siamtransfer.training.saved_training import SavedTraining

GROUP = 2
"""Images whose pixels share a variance in the loss: the images of one GPU of the published runs."""
LOSS_WARM_UP = 100
"""Steps without the variance in the loss."""
WARM_UP_SHARE = 1 / 3
"""Of the steps in which the rate rises (12,800 of 38,400), from WARM_UP_FROM of it."""
WARM_UP_FROM = 0.001
CLIP_NORM = 35.0
BETAS = (0.9, 0.999)
SAVED_EVERY = 1600  # steps, at most, where they can be divided so
_LEAST_BETWEEN = 100


def rate_at(step: int, steps: int, lr: float) -> float:
    """The learning rate of a step from 0: a cosine over all steps, times a linear rise over the first
    third."""
    share = 0.5 * (1 + math.cos(math.pi * step / steps))
    warm = steps * WARM_UP_SHARE
    if step < warm:
        share *= 1 - (1 - step / warm) * (1 - WARM_UP_FROM)
    return lr * share


def train_bins(model: DenseModel, images: DepthImages, depths: DepthRange, config: DepthConfig) -> BinsProbe:
    """Trains the head; with --run its state is kept and a stopped training goes on to the bit.

    Raises:
        UserError: an image cannot be read, the images have several sizes and no crop is given, or the loss is
            not finite.
        SystemExit: a signal arrived; the state is saved where --run is given.
    """
    nyu = config.data.name == NYU
    crop = (config.crop[0], config.crop[1]) if config.crop else (NYU_CROP if nyu else None)
    recipe = DepthRecipe(crop if config.augment else None, nyu, config.augment)
    only = isinstance(model.part, FeatureMaps) and fixed_size(model.part.backbone) is not None
    batches = Batches(images, recipe, model.size, config.batch_size, config.seed, only)
    pixels, _ = next(batches.take(0, 1))
    head = build_head(model.run(pixels[:1]).shape[1], depths, config).to(model.runtime.device)
    optimizer = torch.optim.AdamW(head.parameters(), config.lr, betas=BETAS, weight_decay=config.weight_decay)
    training = _BinsTraining(model, batches, head, optimizer, depths, config)
    protocol = _protocol(config, crop)
    train_epochs(
        training,
        config.steps // training.steps_per_epoch,
        model.runtime,
        saved=_saved(model, images, config, protocol),
    )
    return BinsProbe(head.eval(), protocol)


@dataclass
class _BinsTraining:
    """The head and its optimizer; see training.epochs. What is called an epoch there are the steps between
    two saved states."""

    model: DenseModel
    source: Batches
    head: BinsHead
    optimizer: torch.optim.AdamW
    depths: DepthRange
    config: DepthConfig
    loss_name: str = "loss"
    progress_every: int = UPDATE_PROGRESS

    @property
    def steps_per_epoch(self) -> int:
        steps = self.config.steps
        divisor = next(n for n in range(min(SAVED_EVERY, steps), 0, -1) if steps % n == 0)
        return divisor if divisor >= _LEAST_BETWEEN else steps

    def samples(self, step: int) -> int:
        return self.source.batch

    def batches(self, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self.source.take(start, steps)

    def step(self, step: int, batch: tuple[Tensor, Tensor], exit_status: int | None) -> StepReport:
        pixels, truth = batch
        maps = self.model.run(pixels).clone()  # a tensor of inference mode takes no part in a backward pass
        lr = rate_at(step, self.config.steps, self.config.lr)
        truth = truth.to(maps.device)
        loss = batch_loss(self.head(maps), truth, self.depths, warm_up=step < LOSS_WARM_UP)
        self.optimizer.zero_grad()
        loss.backward()
        report = step_report(loss, self.head.parameters(), exit_status, self.model.runtime)
        check_finite(report, loss, StepContext(step, lr, None, "lower --lr"), scaled=False)
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), CLIP_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return report

    def state_dict(self) -> dict[str, Any]:
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])


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


def _protocol(config: DepthConfig, crop: tuple[int, int] | None) -> dict[str, Any]:
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


def _saved(
    model: DenseModel, images: DepthImages, config: DepthConfig, protocol: dict[str, Any]
) -> SavedTraining | None:
    """The state that a stopped training goes on from, where --run asks for one."""
    if config.run is None:
        return None
    identity = {name: str(value) for name, value in protocol.items()}
    identity |= {
        "weights": model.read.digest if model.read else model.source,
        "layers": f"{config.layers}, class token {config.class_token}",
        "input": str(model.size),
        "depths": f"{config.min_depth} to {config.max_depth}",
        "images": images.fingerprint,
        "seed": str(config.seed),
    }
    return SavedTraining(Path(config.run) / "bins.pth", identity, resume=config.resume)
