"""Vision towers as OpenAI's CLIP and open_clip store them, under timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from siamtransfer.checkpoints.layouts.renaming import Rules, renamed, with_batch_axis

_RULES: Rules = (
    (r"class_embedding$", "cls_token"),
    (r"positional_embedding$", "pos_embed"),
    (r"conv1\.", "patch_embed.proj."),
    (r"ln_pre\.", "norm_pre."),
    (r"ln_post\.", "norm."),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.", r"blocks.\1.norm\2."),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.fc1."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.fc2."),
)


_STAGES = {f"layer{number}": f"stages.{number - 1}" for number in (1, 2, 3, 4)}
_LAYERS = {"1": "conv1_1x1", "2": "conv2_kxk", "3": "conv3_1x1"}


def vision_tower(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ViT.

    Raises:
        ValueError: a name is none of its.
    """
    return with_batch_axis(renamed(tensors, _RULES))


def resnet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet of CLIP, with a stem of three convolutions and attention pooling.

    Raises:
        ValueError: a name is none of its.
    """
    return {_resnet_name(name): tensor for name, tensor in tensors.items()}


def _resnet_name(name: str) -> str:
    stem = re.fullmatch(r"(conv|bn)([123])\.(\w+)", name)
    if stem:
        return f"stem.conv{stem[2]}.{stem[1]}.{stem[3]}"
    pooling = re.fullmatch(r"attnpool\.(?:([qkv])_proj\.(\w+)|positional_embedding)", name)
    if pooling:
        return f"head.{pooling[1]}.{pooling[2]}" if pooling[1] else "head.pos_embed"
    block = re.fullmatch(r"(layer[1-4])\.(\d+)\.(?:(conv|bn)([123])|downsample\.([01]))\.(\w+)", name)
    if not block:
        raise ValueError(f"its tensor {name!r} is none of a CLIP's ResNet")
    stage, number, kind, layer, projection, tensor = block.groups()
    beginning = f"{_STAGES[stage]}.{number}"
    if projection is not None:
        return f"{beginning}.shortcut.conv.{'bn' if projection == '1' else 'conv'}.{tensor}"
    return f"{beginning}.{_LAYERS[layer]}.{kind}.{tensor}"
