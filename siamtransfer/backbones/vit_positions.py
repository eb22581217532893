"""How a ViT gets position embeddings for a grid of patches that it was not trained with.

Every code base interpolates them bicubically, in one of the ways of POSITIONS. timm's is the default of its
networks; the others are put into timm's network by `set_positions`. At the size of the training all agree.
"""

from __future__ import annotations

import functools
import math
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.backbones.names import POSITIONS
from siamtransfer.utils.errors import UserError

_OFFSET = 0.1
"""What DINO's code adds to the number of patches before it divides by the number in training."""


def set_positions(model: Any, way: str) -> None:
    """Lets a VisionTransformer of timm that takes images of any size interpolate its positions in this way.

    Raises:
        UserError: there is no such way, or the network has no position embeddings of its patches.
    """
    from timm.models.vision_transformer import VisionTransformer

    if way not in POSITIONS:
        raise UserError(f"positions {way!r} are unknown; take {', '.join(POSITIONS)}")
    if not isinstance(model, VisionTransformer) or model.pos_embed is None or not model.dynamic_img_size:
        raise UserError(
            "the network has no position embeddings that could be interpolated: leave positions out"
        )
    vit: Any = model
    vit._pos_embed = MethodType(functools.partial(_with_positions, way), vit)


def _with_positions(way: str, model: Any, x: Tensor) -> Tensor:
    """The patches x[N, H, W, D] with their positions, behind the class token and the like: [N, L, D]."""
    others = 0 if model.no_embed_class else model.num_prefix_tokens
    tokens = (model.cls_token, getattr(model, "dist_token", None), model.reg_token)
    prefix = [token.expand(len(x), -1, -1) for token in tokens if token is not None]
    positions = interpolated(
        model.pos_embed, model.patch_embed.grid_size, (x.shape[1], x.shape[2]), others, way
    )
    patches = x.flatten(1, 2)
    if model.no_embed_class:
        embedded = torch.cat([*prefix, patches + positions], dim=1)
    else:
        embedded = torch.cat([*prefix, patches], dim=1) + positions
    dropped: Tensor = model.pos_drop(embedded)
    return dropped


def interpolated(
    positions: Tensor, old: tuple[int, int], new: tuple[int, int], others: int, way: str
) -> Tensor:
    """Position embeddings [1, P, D] of a grid of `old` rows and columns for one of `new`: [1, P', D].

    The first `others` embeddings, those of no patch, stay as they are. The computation is float32's.

    Args:
        way: one of POSITIONS. `antialiased`: to the new size, with antialiasing where that is smaller (timm,
            open_clip, DINOv2 with registers). `bicubic`: to the new size (transformers, MAE, DeiT).
            `bicubic-offset`: by the factor (new + 0.1) / old (DINO, iBOT, DINOv2 without registers).
    """
    if old == new:
        return positions
    grid = positions[:, others:].float().unflatten(1, old).permute(0, 3, 1, 2)
    if way == "bicubic-offset":
        side = math.sqrt(old[0] * old[1])
        factors = [(length + _OFFSET) / side for length in new]
        grid = functional.interpolate(grid, scale_factor=factors, mode="bicubic")
    else:
        grid = functional.interpolate(grid, size=new, mode="bicubic", antialias=way == "antialiased")
    patches = grid.flatten(2).transpose(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :others], patches], dim=1)
