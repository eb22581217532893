"""Optimisers and what they are told each step: rates and weight decay are functions of the step alone, but
for the share of a plateau (plateau.py)."""

from __future__ import annotations

from typing import Any

import torch

from siamtransfer.distributed.sharding import share_like
from siamtransfer.methods.base import ParameterGroup
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.lars import LARC, LARS
from siamtransfer.optim.lookahead import Lookahead
from siamtransfer.optim.schedules import cosine, milestones, warm_up


def rate_at(config: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """The scheduled learning rate of `step` (from 0); groups with a constant rate do not follow it."""
    return config.initial_lr * share_at(config, step, steps_per_epoch)


def share_at(config: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """The share of its initial rate that a group which follows the schedule has at `step` (from 0)."""
    epoch, steps, warmup = (
        step // steps_per_epoch,
        config.epochs * steps_per_epoch,
        config.warmup_epochs * steps_per_epoch,
    )
    if step < warmup:
        return warm_up(config.warmup_start, step, warmup, reaches_peak=config.warmup_reaches_peak)
    match config.schedule:
        case "constant" | "plateau":
            return 1.0
        case "milestones":
            return milestones(epoch, config.milestones)
        case "cosine-epoch":
            done = (epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
        case "cosine-step":
            done = (step - warmup) / (steps - warmup)
        case "cosine-unigrad":
            done = (step - warmup) / steps
    return cosine(1.0, config.end_fraction, done)


def weight_decay_at(config: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """The weight decay of `step` (from 0)."""
    if config.end_weight_decay is None:
        return config.weight_decay
    return cosine(config.weight_decay, config.end_weight_decay, step / (config.epochs * steps_per_epoch))


def set_lr(optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """Gives every group of `optimizer` its rate and weight decay for `step`; returns the scheduled rate."""
    share, decay = share_at(config, step, steps_per_epoch), weight_decay_at(config, step, steps_per_epoch)
    for group in optimizer.param_groups:
        initial = config.initial_vector_lr if group["vectors"] else config.initial_lr
        group["lr"] = group["rate_scale"] * initial * (1 if group["constant_rate"] else share)
        group["weight_decay"] = 0.0 if group["vectors"] and config.spares_vectors else decay
    return config.initial_lr * share


def build_optimizer(config: OptimConfig, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
    """The optimiser of `config` over `groups`; parameters of one dimension are groups of their own where they
    are treated differently."""
    described: list[dict[str, Any]] = []
    apart = config.spares_vectors or config.vector_lr is not None
    for group in groups:
        vectors = [p for p in group.parameters if apart and p.ndim <= 1]
        matrices = [p for p in group.parameters if not apart or p.ndim > 1]
        described += [_describe(group, part, vectors=part is vectors) for part in (matrices, vectors) if part]
    optimizer = _build_rule(config, described)
    if config.lookahead is not None:
        Lookahead(optimizer, config.lookahead, config.lookahead_share)
    return optimizer


def _build_rule(config: OptimConfig, described: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser that `config.name` names over groups of parameters and their options."""
    options: dict[str, Any] = {"lr": config.initial_lr, "weight_decay": config.weight_decay}
    if config.name == "adamw":
        return torch.optim.AdamW(described, **options)
    if config.name == "radam":
        return torch.optim.RAdam(described, decoupled_weight_decay=True, **options)
    options["momentum"] = config.momentum
    if config.name == "sgd":
        return torch.optim.SGD(described, **options)
    options |= {"trust": config.trust, "clip": config.clip_trust}
    for one in described:
        one["adapted"] = not (one["vectors"] and config.spares_vectors)
    return {"lars": LARS, "larc": LARC}[config.name](described, **options)


def _describe(
    group: ParameterGroup, parameters: list[torch.nn.Parameter], *, vectors: bool
) -> dict[str, Any]:
    return {
        "params": parameters,
        "constant_rate": group.constant_lr,
        "rate_scale": group.lr_scale,
        "name": f"{group.name}, vectors" if vectors else group.name,
        "vectors": vectors,
    }


def _shares(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The entry "state" of a saved optimizer, with tensors of a parameter's shape sharded as that is."""
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    known = dict(zip(numbers, parameters, strict=False))  # torch refuses other counts with its own words
    return {
        number: {
            key: share_like(value, known[number])
            if isinstance(value, torch.Tensor) and number in known and value.shape == known[number].shape
            else value
            for key, value in entries.items()
        }
        for number, entries in saved["state"].items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Gives `optimizer` a saved state; options that the state's version did not know stay as built."""
    built = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict({**saved, "state": _shares(optimizer, saved)})
    for group, options in zip(optimizer.param_groups, built, strict=True):
        for key, value in options.items():
            group.setdefault(key, value)
