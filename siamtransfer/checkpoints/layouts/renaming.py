"""New names of tensors by rules: a regular expression for the beginning of a name, and what replaces it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

Rules = Sequence[tuple[str, str]]

_WIDEST_OF_CONVOLUTIONS = 80
"""Channels of the stem of timm's largest ConvNeXt whose dense layers are convolutions."""


def renamed(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """The tensors under new names, each by the first rule that fits the beginning of its name.

    Raises:
        ValueError: none fits a name.
    """
    result = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            match = re.match(pattern, name)
            if match:
                result[match.expand(replacement) + name[match.end() :]] = tensor
                break
        else:
            raise ValueError(f"its tensor {name!r} is unknown")
    return result


def shaped_as_timms_convnext(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a ConvNeXt under timm's names in timm's shapes: scales and shifts have one axis, and the
    two dense layers of a block are 1x1 convolutions in the networks up to 80 channels (Atto to Nano) and
    linear layers in the larger ones. Both compute the same."""
    stem = tensors.get("stem.0.weight")
    convolutions = stem is not None and len(stem) <= _WIDEST_OF_CONVOLUTIONS
    shaped = {}
    for name, tensor in tensors.items():
        if tensor.ndim > 1 and re.search(r"\.mlp\.fc[12]\.weight$", name):
            matrix = tensor.flatten(1)
            shaped[name] = matrix[:, :, None, None] if convolutions else matrix
        elif ".mlp.grn." in name or name.endswith(".bias"):
            shaped[name] = tensor.flatten()
        else:
            shaped[name] = tensor
    return shaped


def with_batch_axis(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The class token and the positions of a CLIP with the first axis that timm's have."""
    shaped = dict(tensors)
    if "cls_token" in shaped:
        shaped["cls_token"] = shaped["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in shaped:
        shaped["pos_embed"] = shaped["pos_embed"][None]
    return shaped
