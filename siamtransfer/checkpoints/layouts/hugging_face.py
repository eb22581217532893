"""Vision networks as Hugging Face's transformers store them, under the names of timm and torchvision.

Each function takes the tensors of a network without the first word that a task adds (`vit.`, `convnext.` …).
transformers keeps queries, keys and values apart; timm has them in one tensor, in this order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from siamtransfer.checkpoints.layouts.renaming import Rules, shaped_as_timms_convnext, with_batch_axis
from siamtransfer.checkpoints.layouts.renaming import renamed as renamed_by

Layout = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

_SWIN_BLOCK = r"encoder\.layers\.(\d+)\.blocks\.(\d+)\."
_CONVNEXT_BLOCK = r"encoder\.stages\.(\d+)\.layers\.(\d+)\."
_BLOCK = r"(?:encoder\.)?layers?\.(\d+)\."  # in memory transformers 5 has no `encoder.`, and its files have
_VIT: Rules = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (_BLOCK + r"attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
    (_BLOCK + r"attention\.q_proj\.", r"blocks.\1.attn.query."),
    (_BLOCK + r"attention\.k_proj\.", r"blocks.\1.attn.key."),
    (_BLOCK + r"attention\.v_proj\.", r"blocks.\1.attn.value."),
    (_BLOCK + r"attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
    (_BLOCK + r"intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
    (_BLOCK + r"output\.dense\.", r"blocks.\1.mlp.fc2."),
    (_BLOCK + r"layernorm_before\.", r"blocks.\1.norm1."),
    (_BLOCK + r"layernorm_after\.", r"blocks.\1.norm2."),
    (_BLOCK + r"(norm[12]\.|mlp\.fc[12]\.)", r"blocks.\1.\2"),
    (_BLOCK + r"mlp\.weights_in\.", r"blocks.\1.mlp.fc1."),
    (_BLOCK + r"mlp\.weights_out\.", r"blocks.\1.mlp.fc2."),
    (_BLOCK + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"layernorm\.", "norm."),
)
_DINOV3: Rules = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"layer\.(\d+)\.attention\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (r"layer\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.proj."),
    (r"layer\.(\d+)\.mlp\.gate_proj\.", r"blocks.\1.mlp.fc1_g."),
    (r"layer\.(\d+)\.mlp\.up_proj\.", r"blocks.\1.mlp.fc1."),
    (r"layer\.(\d+)\.mlp\.down_proj\.", r"blocks.\1.mlp.fc2."),
    (r"layer\.(\d+)\.(norm[12]\.)", r"blocks.\1.\2"),
    (r"layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.gamma_\2"),
    (r"norm\.", "norm."),
)
_CLIP: Rules = (
    (r"embeddings\.class_embedding", "cls_token"),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (r"embeddings\.patch_embedding\.", "patch_embed.proj."),
    (_BLOCK + r"self_attn\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (_BLOCK + r"self_attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (_BLOCK + r"layer_norm([12])\.", r"blocks.\1.norm\2."),
    (_BLOCK + r"mlp\.(fc[12]\.)", r"blocks.\1.mlp.\2"),
    (r"pre_layrnorm\.", "norm_pre."),  # spelled so in transformers
    (r"post_layernorm\.", "norm."),
    (r"head\.probe", "attn_pool.latent"),
    (r"head\.attention\.in_proj_", "attn_pool.in."),
    (r"head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"head\.layernorm\.", "attn_pool.norm."),
    (r"head\.mlp\.(fc[12]\.)", r"attn_pool.mlp.\1"),
)
_SWIN: Rules = (
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"embeddings\.norm\.", "patch_embed.norm."),
    (
        _SWIN_BLOCK + r"attention\.self\.(query|key|value)\.",
        r"layers.\1.blocks.\2.attn.\3.",
    ),
    (
        _SWIN_BLOCK + r"attention\.self\.(relative_position_bias_table)",
        r"layers.\1.blocks.\2.attn.\3",
    ),
    (_SWIN_BLOCK + r"attention\.output\.dense\.", r"layers.\1.blocks.\2.attn.proj."),
    (_SWIN_BLOCK + r"intermediate\.dense\.", r"layers.\1.blocks.\2.mlp.fc1."),
    (_SWIN_BLOCK + r"output\.dense\.", r"layers.\1.blocks.\2.mlp.fc2."),
    (_SWIN_BLOCK + r"layernorm_before\.", r"layers.\1.blocks.\2.norm1."),
    (_SWIN_BLOCK + r"layernorm_after\.", r"layers.\1.blocks.\2.norm2."),
    (r"encoder\.layers\.(\d+)\.downsample\.", r"layers.\1.downsample."),
    (r"layernorm\.", "norm."),
)
_CONVNEXT: Rules = (
    (r"embeddings\.patch_embeddings\.", "stem.0."),
    (r"embeddings\.layernorm\.", "stem.1."),
    (r"encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
    (_CONVNEXT_BLOCK + r"dwconv\.", r"stages.\1.blocks.\2.conv_dw."),
    (_CONVNEXT_BLOCK + r"layernorm\.", r"stages.\1.blocks.\2.norm."),
    (_CONVNEXT_BLOCK + r"pwconv([12])\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (_CONVNEXT_BLOCK + r"grn\.", r"stages.\1.blocks.\2.mlp.grn."),
    (_CONVNEXT_BLOCK + r"layer_scale_parameter", r"stages.\1.blocks.\2.gamma"),
    (r"layernorm\.", "head.norm."),
)
_DINOV3_CONVNEXT: Rules = (
    (r"stages\.0\.downsample_layers\.", "stem."),
    (r"stages\.(\d+)\.downsample_layers\.", r"stages.\1.downsample."),
    (r"stages\.(\d+)\.layers\.(\d+)\.depthwise_conv\.", r"stages.\1.blocks.\2.conv_dw."),
    (r"stages\.(\d+)\.layers\.(\d+)\.layer_norm\.", r"stages.\1.blocks.\2.norm."),
    (r"stages\.(\d+)\.layers\.(\d+)\.pointwise_conv([12])\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (r"stages\.(\d+)\.layers\.(\d+)\.gamma", r"stages.\1.blocks.\2.gamma"),
    (r"layer_norm\.", "head.norm."),
)
_TORCHVISIONS_BLOCK = {"convolution": "conv", "normalization": "bn"}


def vit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ViT, DeiT, MAE, DINOv2 with registers or without.

    With registers timm adds the class token's position to the class token itself.
    """
    renamed = _fused(renamed_by(tensors, _VIT), "query", "key", "value")
    if "reg_token" in renamed and "pos_embed" in renamed:
        positions = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
    return renamed


def dinov3(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3's ViTs, whose keys have no bias."""
    renamed = renamed_by(tensors, _DINOV3)
    gated = [name for name in renamed if ".mlp.fc1_g." in name]
    for name in gated:
        up = name.replace(".fc1_g.", ".fc1.")
        if up in renamed:
            renamed[name.replace(".fc1_g.", ".fc1_x.")] = renamed.pop(up)
    for name in [name for name in renamed if name.endswith((".attn.q.bias", ".attn.v.bias"))]:
        renamed[name.replace(".bias", "_bias")] = renamed.pop(name)
    return _fused(renamed, "q", "k", "v")


def clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision towers of CLIP and SigLIP."""
    renamed = _fused(renamed_by(tensors, _CLIP), "q", "k", "v")
    renamed = with_batch_axis(renamed)
    for kind in ("weight", "bias"):
        joined = renamed.pop(f"attn_pool.in.{kind}", None)
        if joined is not None:
            width = len(joined) // 3
            renamed[f"attn_pool.q.{kind}"] = joined[:width]
            renamed[f"attn_pool.kv.{kind}"] = joined[width:]
    return renamed


def swin(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Swin Transformers. What halves the resolution ends a stage there and begins the next one in timm."""
    renamed = _fused(renamed_by(tensors, _SWIN), "query", "key", "value")
    return {
        re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name): tensor
        for name, tensor in renamed.items()
    }


def convnext(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ConvNeXt, its second version too."""
    return shaped_as_timms_convnext(renamed_by(tensors, _CONVNEXT))


def dinov3_convnext(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3's ConvNeXts."""
    return renamed_by(tensors, _DINOV3_CONVNEXT)


def resnet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ResNets, under torchvision's names."""
    return {_resnet_name(name): tensor for name, tensor in tensors.items()}


def _resnet_name(name: str) -> str:
    stem = re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", name)
    if stem:
        return f"{_TORCHVISIONS_BLOCK[stem[1]]}1.{stem[2]}"
    block = re.fullmatch(
        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|shortcut)\.(convolution|normalization)\.(\w+)",
        name,
    )
    if not block:
        raise ValueError(f"its tensor {name!r} is none of a ResNet's")
    stage, number, layer, kind, tensor = block.groups()
    beginning = f"layer{int(stage) + 1}.{number}"
    if layer is None:
        return f"{beginning}.downsample.{'01'[kind == 'normalization']}.{tensor}"
    return f"{beginning}.{_TORCHVISIONS_BLOCK[kind]}{int(layer) + 1}.{tensor}"


def _fused(tensors: dict[str, Tensor], query: str, key: str, value: str) -> dict[str, Tensor]:
    """The tensors with queries, keys and values in one where all three are there."""
    fused = dict(tensors)
    for name in tensors:
        beginning, middle, kind = name.rpartition(f".attn.{query}.")
        parts = [f"{beginning}.attn.{part}.{kind}" for part in (query, key, value)]
        if middle and all(part in tensors for part in parts):
            fused[f"{beginning}.attn.qkv.{kind}"] = torch.cat([fused.pop(part) for part in parts])
    return fused
