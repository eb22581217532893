"""New names of tensors by rules: a regular expression for the beginning of a name, and what replaces it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

Rules = Sequence[tuple[str, str]]


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


def with_batch_axis(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The class token and the positions of a CLIP with the first axis that timm's have."""
    shaped = dict(tensors)
    if "cls_token" in shaped:
        shaped["cls_token"] = shaped["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in shaped:
        shaped["pos_embed"] = shaped["pos_embed"][None]
    return shaped
