"""Optimisers and learning-rate schedules; every rate is a function of the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from siamtransfer.errors import UserError
from siamtransfer.methods.method import ParameterGroup


@dataclass
class OptimConfig:
    """How long and how fast to train."""

    epochs: int = 100
    """Passes over the images; the schedule is laid out over them."""
    batch: int = 512
    """Images per update, over all ranks and accumulated parts together."""
    lr: float = 0.05
    """Base learning rate: the initial rate is lr x batch / 256."""
    momentum: float = 0.9
    """SGD's momentum."""
    weight_decay: float = 1e-4
    """On every trainable parameter, batch norm and biases included, as SimSiam does."""
    name: Literal["sgd", "adamw"] = "sgd"
    """The update rule."""
    schedule: Literal["cosine-epoch", "cosine-step", "constant"] = "cosine-epoch"
    """Cosine to zero in one stair per epoch (SimSiam's and MoCo's code) or smoothly, or no decay."""
    warmup_epochs: int = 0
    """Epochs of linear warm-up from zero before the decay (the paper: 10 for batches of 1024 or more)."""
    accumulate: int = 1
    """Parts that a rank splits its share of the batch into to save memory; batch-norm statistics are then
    those of one part, so the result is not that of the whole batch at once."""

    def check(self, world: int, images: int) -> None:
        """Raises UserError when the numbers cannot go together, naming the key and the cure."""
        if min(self.epochs, self.batch, self.accumulate) < 1:
            raise UserError("optim.epochs, optim.batch and optim.accumulate must be at least 1")
        for key in ("lr", "momentum", "weight_decay"):
            if not 0 <= getattr(self, key) < math.inf:
                raise UserError(f"optim.{key} is {getattr(self, key)}, but must be 0 or more")
        if self.batch % (world * self.accumulate):
            raise UserError(
                f"optim.batch {self.batch} does not divide into {world} ranks x {self.accumulate} parts "
                f"(optim.accumulate): choose a multiple of {world * self.accumulate}"
            )
        if self.batch // (world * self.accumulate) < 2:
            raise UserError(
                f"optim.batch {self.batch} leaves fewer than 2 images for batch norm on each of {world} "
                f"ranks x {self.accumulate} parts: raise it to {2 * world * self.accumulate} or more"
            )
        if images < self.batch:
            raise UserError(
                f"the set has {images} images and optim.batch is {self.batch}: lower it with "
                f"--optim.batch {max(2, 2 ** int(math.log2(max(images, 2))))} or add images"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UserError(
                f"optim.warmup_epochs {self.warmup_epochs} must be at least 0 and less than optim.epochs "
                f"{self.epochs}"
            )

    @property
    def initial_rate(self) -> float:
        """lr x global batch / 256 (Goyal et al. 2017)."""
        return self.lr * self.batch / 256


def rate_at(config: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """The scheduled learning rate of `step` (from 0); groups with a constant rate do not follow it."""
    peak, warmup = config.initial_rate, config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return peak * step / warmup
    if config.schedule == "constant":
        return peak
    if config.schedule == "cosine-epoch":
        done = (step // steps_per_epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
    else:
        done = (step - warmup) / (config.epochs * steps_per_epoch - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def set_rates(
    optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, steps_per_epoch: int
) -> float:
    """Gives every group of `optimizer` its rate for `step`; returns the scheduled one."""
    rate = rate_at(config, step, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = group["rate_scale"] * (config.initial_rate if group["constant_rate"] else rate)
    return rate


def build_optimizer(config: OptimConfig, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
    """The optimiser of `config` over `groups`."""
    described = [
        {
            "params": group.parameters,
            "constant_rate": group.constant_rate,
            "rate_scale": group.rate_scale,
            "name": group.name,
        }
        for group in groups
    ]
    lr, decay = config.initial_rate, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(described, lr=lr, momentum=config.momentum, weight_decay=decay)
    return torch.optim.AdamW(described, lr=lr, weight_decay=decay)
