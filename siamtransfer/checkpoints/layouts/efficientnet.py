"""EfficientNets as efficientnet-pytorch and efficientnet-lite-pytorch store them.

There the blocks have one number each, `_blocks.N`; in timm they have two, that of their stage and that within
the stage. A new stage begins where the number of output channels changes, because no two stages in a row have
the same number.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_AROUND = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST = {  # of the first stage, which does not expand
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def to_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names.

    Raises:
        ValueError: a name is none of such a network's.
    """
    stages = _stages({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return {_rename(name, stages): tensor for name, tensor in tensors.items()}


def _stages(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, int, bool]]:
    """Of every block its stage, its number within the stage, and whether it expands its channels."""
    stages: list[tuple[int, int, bool]] = []
    stage, place, width = -1, 0, 0
    while (projection := f"_blocks.{len(stages)}._project_conv.weight") in shapes:
        expands = f"_blocks.{len(stages)}._expand_conv.weight" in shapes
        if shapes[projection][0] != width:
            stage, place, width = stage + 1, -1, shapes[projection][0]
        place += 1
        stages.append((stage, place, expands))
    return stages


def _rename(name: str, stages: list[tuple[int, int, bool]]) -> str:
    words = name.split(".")
    if words[0] in _AROUND:
        return ".".join([_AROUND[words[0]], *words[1:]])
    if words[0] == "_blocks" and len(words) > 3 and words[1].isdecimal() and int(words[1]) < len(stages):
        stage, place, expands = stages[int(words[1])]
        layers = _EXPANDING if expands else _FIRST
        if words[2] in layers:
            return ".".join(["blocks", str(stage), str(place), layers[words[2]], *words[3:]])
    raise ValueError(f"its tensor {name!r} is none of an EfficientNet's")
