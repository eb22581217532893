"""A frozen network in front of pixels: reading it, and running a part of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.checkpoints.assumptions import say_assumptions
from siamtransfer.checkpoints.read_backbone import ReadBackbone, load_backbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.dense.config import FrozenConfig
from siamtransfer.metering.meter import ImageClock
from siamtransfer.utils.errors import UserError


def read_frozen(options: FrozenConfig, runtime: Runtime) -> tuple[Backbone, ReadBackbone]:
    """The backbone of `options.checkpoint` on the device of `runtime`; what was assumed is said.

    Raises:
        UserError: it cannot be read.
    """
    assert options.checkpoint is not None
    backbone, read = load_backbone(
        options.checkpoint, branch=options.branch, trust_pickle=options.trust_pickle, options=options
    )
    if runtime.is_main:
        say_assumptions(read)
    return backbone.to(runtime.device), read


def run_frozen(
    part: nn.Module, pixels: Tensor, read: ReadBackbone | None, runtime: Runtime, source: str
) -> Tensor:
    """float32 on the device of `runtime`: what `part` makes of pixels uint8[b, C, h, w], normalised as `read`
    says; without it they are in [0, 1].

    Raises:
        UserError: a number is not finite, or the network takes another number of channels; `source` names
            the network.
    """
    if read is not None and pixels.shape[1] != read.architecture.in_channels:
        raise UserError(
            f"{source} takes images of {read.architecture.in_channels} channels, and these have "
            f"{pixels.shape[1]}: name other images, or state --data.channels where the program has it"
        )
    mean, std = read.normalisation if read else ((0.0,), (1.0,))
    device, clock = runtime.device, ImageClock()
    shift, scale = (torch.tensor(values, device=device).view(-1, 1, 1) * 255 for values in (mean, std))
    with torch.inference_mode(), runtime.autocast():
        result: Tensor = part((pixels.to(device).float() - shift) / scale).float()
    if not bool(torch.isfinite(result).all()):
        raise UserError(
            f"{source} gives numbers that are not finite: its weights are damaged, or "
            f"{runtime.precision} is too narrow for it (try --precision float32)"
        )
    clock.count(len(pixels))
    return result
