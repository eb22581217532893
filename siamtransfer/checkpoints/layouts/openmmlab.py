"""Vision Transformers, ConvNeXts and Swin Transformers as OpenMMLab stores them, under timm's names.

MMPretrain, MMSelfSup, MMDetection and MMSegmentation have the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from siamtransfer.checkpoints.layouts.official import to_timm as official_to_timm
from siamtransfer.checkpoints.layouts.renaming import Rules, renamed, shaped_as_timms_convnext

_VIT_LAYER = r"layers\.(\d+)\."
_VIT: Rules = (
    (r"(cls_token|pos_embed)$", r"\1"),
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (_VIT_LAYER + r"ln([12])\.", r"blocks.\1.norm\2."),
    (_VIT_LAYER + r"attn\.(qkv|proj)\.", r"blocks.\1.attn.\2."),
    (_VIT_LAYER + r"ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (_VIT_LAYER + r"ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (r"ln1\.", "norm."),
)
_CONVNEXT_BLOCK = r"stages\.(\d+)\.(\d+)\."
_CONVNEXT: Rules = (
    (r"downsample_layers\.0\.", "stem."),
    (r"downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (_CONVNEXT_BLOCK + r"depthwise_conv\.", r"stages.\1.blocks.\2.conv_dw."),
    (_CONVNEXT_BLOCK + r"norm\.", r"stages.\1.blocks.\2.norm."),
    (_CONVNEXT_BLOCK + r"pointwise_conv([12])\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (_CONVNEXT_BLOCK + r"grn\.gamma$", r"stages.\1.blocks.\2.mlp.grn.weight"),
    (_CONVNEXT_BLOCK + r"grn\.beta$", r"stages.\1.blocks.\2.mlp.grn.bias"),
    (_CONVNEXT_BLOCK + r"gamma$", r"stages.\1.blocks.\2.gamma"),
    (r"norm3\.", "head.norm."),
)
_SWIN_BLOCK = r"stages\.(\d+)\.blocks\.(\d+)\."
_SWIN: Rules = (
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"patch_embed\.norm\.", "patch_embed.norm."),
    (_SWIN_BLOCK + r"norm([12])\.", r"layers.\1.blocks.\2.norm\3."),
    (
        _SWIN_BLOCK + r"attn\.w_msa\.(qkv\.|proj\.|relative_position_bias_table)",
        r"layers.\1.blocks.\2.attn.\3",
    ),
    (_SWIN_BLOCK + r"ffn\.layers\.0\.0\.", r"layers.\1.blocks.\2.mlp.fc1."),
    (_SWIN_BLOCK + r"ffn\.layers\.1\.", r"layers.\1.blocks.\2.mlp.fc2."),
    (r"stages\.(\d+)\.downsample\.", r"downsample\1."),
    (r"norm3\.", "norm."),
)


def to_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names; those of another network, such as a ResNet, unchanged.

    Raises:
        ValueError: they are in one of these layouts, and one of them has no name there.
    """
    if any(re.match(_VIT_LAYER + r"ln1\.", name) for name in tensors):
        return renamed(tensors, _VIT)
    if any(".depthwise_conv." in name for name in tensors):
        return convnext(tensors)
    if any(".attn.w_msa." in name for name in tensors):
        return swin(tensors)
    return official_to_timm(tensors)


def convnext(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ConvNeXt, its second version too.

    Raises:
        ValueError: a name is none of a ConvNeXt's.
    """
    return shaped_as_timms_convnext(renamed(tensors, _CONVNEXT))


def swin(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Swin Transformers. What halves the resolution ends a stage there and begins the next one in timm, and
    joins four neighbours by torch.nn.Unfold, channel by channel; timm does so neighbour by neighbour, first
    down, then to the right.

    Raises:
        ValueError: a name is none of a Swin Transformer's.
    """
    own = {name: tensor for name, tensor in tensors.items() if not name.endswith("relative_position_index")}
    result = {}
    for name, tensor in renamed(own, _SWIN).items():
        merging = re.match(r"downsample(\d+)\.", name)
        if merging:
            name = f"layers.{int(merging[1]) + 1}.downsample.{name[merging.end() :]}"
            tensor = _neighbours_first(tensor)
        result[name] = tensor
    return result


def _neighbours_first(tensor: Tensor) -> Tensor:
    """The last axis, of channels with four neighbours each, as four neighbours with all channels each."""
    *rest, width = tensor.shape
    by_channel = tensor.reshape(*rest, width // 4, 4)[..., [0, 2, 1, 3]]
    return by_channel.transpose(-1, -2).reshape(tensor.shape).contiguous()


FIRST_WORDS = (
    *("downsample_layers.", "layers.0.downsample.", "cls_attn_blocks.", "rel_pos_bias.", "preprocessor."),
    *("blocks.0.attn.relative_position_index", "layers.0.ln1.", "stages.0.blocks.0.attn.w_msa."),
)
"""Beginnings of names; a file in one of these layouts, or of those of official.py, has one of them."""
