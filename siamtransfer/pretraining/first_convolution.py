"""Weights for images of three channels as the start of a network for another number.

Which tensors those are is seen by comparing the shapes of the network for both numbers, so that it holds for
every architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of
from siamtransfer.utils.errors import UserError

Adaptation = Literal["repeat", "colours"]


def adapt_first_convolution(
    read: ReadBackbone, wanted: Architecture, how: Adaptation | None, rgb: Sequence[int]
) -> tuple[ReadBackbone, str | None]:
    """The backbone `read` for the channels of `wanted`, and a sentence that says what was done; as it is, and
    None, where it is for so many channels already.

    Raises:
        UserError: nothing says how, or it cannot be done.
    """
    channels, stored = wanted.in_channels, read.architecture.in_channels
    if channels == stored:
        if how is not None:
            raise UserError(
                f"backbone.first_convolution is {how}, and {read.path} is for images of {channels} channels "
                "already: leave it out"
            )
        return read, None
    if stored != 3:
        raise UserError(
            f"{read.path} is for images of {stored} channels and the run's have {channels}: only weights for "
            "three channels can be adapted"
        )
    if how is None:
        raise UserError(
            f"{read.path} is for images of 3 channels and the run's have {channels}: say how its first "
            "convolution starts, --backbone.first-convolution repeat or colours"
        )
    if how == "colours" and not rgb:
        raise UserError(
            "backbone.first_convolution colours keeps the filters of red, green and blue, and no channel is "
            "one: say which are with --data.rgb, or take repeat"
        )
    architecture = read.architecture._replace(in_channels=channels)
    new, old = architecture.shapes(), read.architecture.shapes()
    changed = [name for name, shape in new.items() if shape != old[name]]
    state = dict(read.state)
    for name in changed:
        if len(old[name]) != 4 or old[name][1] != 3:
            raise UserError(
                f"{read.path}: {name} of {architecture.name} has the shape {list(old[name])}, which is no "
                "convolution of three channels that could be adapted: train from random weights"
            )
        state[name] = _adapted(state[name], channels, how, rgb)
    where = " and ".join(changed)
    done = (
        f"the filters of red, green and blue in {where} are repeated over {channels} channels and scaled by "
        f"3 / {channels}"
        if how == "repeat"
        else f"the filters of red, green and blue in {where} are those of the channels "
        f"{', '.join(map(str, rgb))}, and the others start at zero"
    )
    if how == "repeat" and channels == 1:
        done = f"the filters of red, green and blue in {where} are added up for the one channel"
    return replace(read, architecture=architecture, state=state, digest=digest_of(state)), done


def _adapted(weight: Tensor, channels: int, how: Adaptation, rgb: Sequence[int]) -> Tensor:
    """[O,C,k,k] from [O,3,k,k]."""
    if how == "repeat":
        from timm.models import adapt_input_conv

        adapted: Tensor = adapt_input_conv(channels, weight)
        return adapted.contiguous()
    filters = torch.zeros(len(weight), channels, *weight.shape[2:], dtype=weight.dtype)
    filters[:, list(rgb)] = weight
    return filters
