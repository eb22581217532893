"""MoCo v3's initialisation of a vision transformer (arXiv 2104.02057, section 5 and the published code)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.utils.errors import UserError

POSITION_BASE = 10000  # of the wavelengths, from 2π to about 2π times this


def vit_of(backbone: nn.Module) -> Any:
    """timm's VisionTransformer inside the backbone, or None where it is another network."""
    from timm.models.vision_transformer import VisionTransformer

    model = getattr(backbone, "model", None)
    return model if isinstance(model, VisionTransformer) else None


def freeze_patches(backbone: nn.Module) -> None:
    """Freezes the patch embedding of a VisionTransformer at its initial weights; UserError for other
    networks."""
    if (vit := vit_of(backbone)) is None:
        raise UserError(
            "freeze_patches is for a ViT's patch embedding: set it to false, or choose a ViT by backbone.name"
        )
    vit.patch_embed.requires_grad_(False)


@torch.no_grad()
def initialise(vit: Any) -> None:
    """Sets MoCo v3's initial weights: linear layers are uniform after Glorot and Bengio (query, key and value
    separately), biases are zero, the class token is nearly zero, and positions are fixed."""
    for name, module in vit.named_modules():
        if isinstance(module, nn.Linear):
            for weight in module.weight.chunk(3 if name.endswith("qkv") else 1):
                nn.init.xavier_uniform_(weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    patches = vit.patch_embed.proj
    nn.init.xavier_uniform_(patches.weight.flatten(1))
    nn.init.zeros_(patches.bias)
    nn.init.normal_(vit.cls_token, std=1e-6)
    rows, columns = vit.patch_embed.grid_size
    nn.init.zeros_(vit.pos_embed)
    vit.pos_embed[:, vit.num_prefix_tokens :] = positions(rows, columns, vit.embed_dim)
    vit.pos_embed.requires_grad_(False)


def positions(rows: int, columns: int, width: int) -> Tensor:
    """[rows * columns, width], row after row: sines and cosines of the row, then of the column, each at
    width / 4 wavelengths."""
    frequencies = POSITION_BASE ** -(torch.arange(width // 4) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [coordinate.flatten()[:, None] * frequencies for coordinate in (row, column)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
