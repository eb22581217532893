"""Vision Transformers as Meta's code bases store them (DINOv2, DINOv3), under timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor


def dinov2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's ViTs with registers or without, from a file of weights or from a training.

    With registers timm adds the class token's position to the class token itself. A training numbers its
    blocks twice where it wraps several in one.
    """
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)
        name = name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        renamed["reg_token" if name == "register_tokens" else name] = tensor
    if "reg_token" in renamed and {"cls_token", "pos_embed"} <= renamed.keys():
        positions = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
    return renamed


def dinov3(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3's ViTs. Of the bias of queries, keys and values a mask leaves out that of the keys.

    Raises:
        ValueError: a mask leaves a bias of keys.
    """
    renamed = {}
    for name, tensor in tensors.items():
        if name.endswith(".attn.qkv.bias_mask"):
            continue
        if name.endswith(".attn.qkv.bias"):
            query, value = _biases(name, tensor, tensors.get(f"{name}_mask"))
            block = name.removesuffix("qkv.bias")
            renamed[f"{block}q_bias"], renamed[f"{block}v_bias"] = query, value
            continue
        name = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)
        for old, new in ((".mlp.w1.", ".mlp.fc1_g."), (".mlp.w2.", ".mlp.fc1_x."), (".mlp.w3.", ".mlp.fc2.")):
            name = name.replace(old, new)
        renamed["reg_token" if name == "storage_tokens" else name] = tensor
    return renamed


def _biases(name: str, bias: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Those of queries and of values."""
    masked = bias if mask is None else torch.where(mask == 0, torch.zeros_like(bias), bias * mask)
    query, key, value = masked.chunk(3)
    if bool((key != 0).any()):
        raise ValueError(f"its tensor {name!r} has a bias of keys, which DINOv3's networks have not")
    return query, value
