"""What activation checkpointing and sharding do not go together with, and what is sharded as one unit."""

from __future__ import annotations

import torch
from torch import nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.blocks import blocks_of
from siamtransfer.config import PretrainConfig
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.errors import UserError


def refuse_combinations(config: PretrainConfig, runtime: Runtime) -> None:
    """Raises UserError where hardware.activation_checkpointing or hardware.shard cannot work in this run."""
    hardware = config.hardware
    if hardware.activation_checkpointing and hardware.cuda_graph:
        raise UserError(
            "hardware.activation_checkpointing and hardware.cuda_graph do not go together, for a recorded "
            "graph cannot set random numbers back: leave one of them out"
        )
    if hardware.activation_checkpointing and hardware.compile:
        raise UserError(
            "hardware.activation_checkpointing and hardware.compile do not go together, for torch.compile "
            "plans by itself what to recompute: leave one of them out"
        )
    if hardware.cuda_graph and config.adapt.warmup_epochs:
        raise UserError(
            "hardware.cuda_graph records one kind of step, and adapt.warmup_epochs begins with another kind: "
            "leave one of the two out"
        )
    if hardware.shard == "none":
        return
    reasons = (
        (runtime.world_size == 1, "it shares weights among ranks, and this run has one: leave it out"),
        (
            runtime.dtype == torch.float16,
            "float16's loss scaler is not sharded: take --hardware.precision bfloat16 or float32",
        ),
        (hardware.compile, "sharded networks are not compiled: leave --hardware.compile out"),
        (hardware.cuda_graph, "exchanges of weights are not recorded: leave --hardware.cuda_graph out"),
        (
            hardware.guard == "device",
            "the device's guard keeps a second copy of all weights: take --hardware.guard step",
        ),
        (
            config.adapt.warmup_epochs > 0,
            "what is shared cannot be frozen and released within a run: leave adapt.warmup_epochs 0",
        ),
        (
            config.adapt.lora_rank > 0,
            "low-rank corrections are small and merged on one rank: leave adapt.lora_rank 0, or do not shard",
        ),
        (
            not hardware.sync_batch_norm,
            "without synchronised batch norm each rank would have statistics of its own, and those of rank "
            "0 alone would be saved: leave hardware.sync_batch_norm true",
        ),
        (
            getattr(config.options, "projector_pca", "none") != "none",
            "principal components set whole layers: leave simsiam_variants.projector_pca none",
        ),
        (
            config.monitor.gradients_every > 0,
            "the gradient view copies whole heads: take --monitor.gradients_every 0",
        ),
    )
    for holds, reason in reasons:
        if holds:
            raise UserError(f"hardware.shard fsdp2: {reason}")


def sharded_units(method: nn.Module) -> list[str]:
    """The names in `method` of what is gathered at once: each block of each backbone. The stems and the heads
    belong to the whole."""
    names = {module: name for name, module in method.named_modules()}
    return [
        names[block]
        for network in method.children()
        if isinstance(network, Backbone)
        for block in blocks_of(network)
    ]
