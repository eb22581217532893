"""A plain ViT of timm as a trunk for detection: images of any size to one map.

The trunk has timm's network and its names of tensors, and runs timm's layers one by one; only the attention
between queries, keys and values is vit_windows.py's. Layer scale, norms of queries and keys, rotary
positions, class token and registers stay as they were pretrained. With attention over the whole image the map
is that of timm's `forward_intermediates`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.library_backbone import LibraryBackbone
from siamtransfer.detection.vit_windows import Heads, RelativePositions, TokenGrid, attend
from siamtransfer.utils.errors import UserError

_USED = ("patch_embed", "pos_embed", "cls_token", "reg_token", "dist_token", "norm_pre", "blocks", "rope")
"""How the names of tensors begin that the map is made of, without the final norm."""


class VitTrunk(LibraryBackbone):
    """x[N, 3, H, W], normalised, H and W multiples of `patch`, to the map [N, C, H / patch, W / patch].

    Attributes:
        patch: the side of a patch in pixels. Where it is not the network's own, the weights of the patch
            embedding are resampled in every forward by the pseudo-inverse of the resizing (Beyer et al. 2022,
            FlexiViT, arXiv 2212.08013, section 3.4); the parameters keep their size, and learn.
        windows: for each block the side of its windows in patches, None for attention over the whole image.
        final_norm: whether the network's last norm is the map's. (ViTDet leaves it out.)

    Parameters of which the map is not made (a pooling, a norm after it) do not require gradients.

    Raises:
        UserError: the network is no plain ViT, or has blocks that are not run here.
    """

    def __init__(
        self,
        architecture: Architecture,
        windows: Sequence[int | None],
        *,
        patch: int | None = None,
        final_norm: bool = True,
        drop_path: float = 0.0,
    ):
        backbone: Any = architecture.build(drop_path=drop_path)
        if reason := why_no_plain_vit(backbone):
            raise UserError(f"{backbone.name} cannot be the trunk of a ViT's pyramid: {reason}")
        super().__init__(backbone.name, backbone.model, int(backbone.model.embed_dim))
        if len(windows) != len(self.blocks):
            raise ValueError(f"{len(windows)} windows for {len(self.blocks)} blocks")
        self.windows, self.final_norm = tuple(windows), final_norm
        own = own_patch(backbone.model)
        self.patch = patch or own
        self._resampler: nn.Module | None = None
        if self.patch != own:
            self._resampler = _resampler(backbone, own)
        used = (*_USED, "norm") if final_norm else _USED
        for name, parameter in backbone.model.named_parameters():
            parameter.requires_grad_(name.split(".")[0] in used)

    @property
    def blocks(self) -> Any:
        """timm's blocks."""
        return self.model.blocks

    @property
    def head_channels(self) -> list[int]:
        """The channels of a query in each block."""
        return [int(block.attn.head_dim) for block in self.blocks]

    def forward(self, x: Tensor, relative: Mapping[int, RelativePositions] | None = None) -> Tensor:
        """The map; `relative` are the relative positions of blocks by their number from 0."""
        model: Any = self.model
        embedded = self._embed(x)
        height, width = int(embedded.shape[1]), int(embedded.shape[2])
        tokens, rotation = model._pos_embed(embedded), None
        if isinstance(tokens, tuple):
            tokens, rotation = tokens
        tokens = model.norm_pre(tokens)
        grid = TokenGrid(int(model.num_prefix_tokens), height, width)
        mixed = bool(getattr(model, "rope_mixed", False))
        for number, (block, window) in enumerate(zip(self.blocks, self.windows, strict=True)):
            turned = rotation[number] if mixed and rotation is not None else rotation
            positions = relative[number] if relative and number in relative else None
            tokens = _run(block, tokens, turned, grid, window, positions)
        if self.final_norm:
            tokens = model.norm(tokens)
        patches = tokens[:, grid.prefix :].unflatten(1, (height, width))
        return patches.permute(0, 3, 1, 2).contiguous()

    def _embed(self, x: Tensor) -> Tensor:
        """x to the embedded patches [N, h, w, C], without positions."""
        model: Any = self.model
        layer = model.patch_embed
        if self._resampler is None:
            embedded: Tensor = layer(x)
            return embedded
        weight = self._resampler(layer.proj.weight, [self.patch, self.patch])
        patches = functional.conv2d(x, weight, layer.proj.bias, stride=self.patch)
        normed: Tensor = layer.norm(patches.permute(0, 2, 3, 1))
        return normed


def own_patch(model: Any) -> int:
    """The side in pixels of a patch of timm's ViT."""
    return int(model.feature_info[-1]["reduction"])


def why_no_plain_vit(backbone: Any) -> str | None:
    """Why a backbone cannot be a `VitTrunk`, or None where it can."""
    from timm.layers import Attention, AttentionRope
    from timm.models.eva import Eva, EvaAttention, EvaBlock
    from timm.models.vision_transformer import Block, VisionTransformer

    model: Any = getattr(backbone, "model", None)
    if not isinstance(model, VisionTransformer | Eva):
        return "it is no plain ViT of timm (VisionTransformer or Eva)"
    for block in model.blocks:
        known = type(block) in (Block, EvaBlock)
        if not known or type(block.attn) not in (Attention, AttentionRope, EvaAttention):
            kind = type(block.attn if known else block).__name__
            return f"its blocks have timm's {kind}, which is not run in windows here"
        if getattr(block.attn, "num_kv_groups", 1) > 1:
            return "several of its queries share a key, which is not run in windows here"
    if not getattr(model, "dynamic_img_size", False):
        return "timm builds it for images of one size only"
    return None


def _resampler(backbone: Any, own: int) -> nn.Module:
    from timm.layers import PatchEmbed
    from timm.layers.patch_embed import PatchEmbedResamplerFixedOrigSize

    if type(backbone.model.patch_embed) is not PatchEmbed:
        raise UserError(
            f"the patches of {backbone.name} are not embedded by one convolution, so their size cannot be "
            "changed: leave MODEL.VIT.PATCH_SIZE out"
        )
    return PatchEmbedResamplerFixedOrigSize((own, own))


def _run(
    block: Any,
    tokens: Tensor,
    rotation: Tensor | None,
    grid: TokenGrid,
    window: int | None,
    relative: RelativePositions | None,
) -> Tensor:
    """timm's Block or EvaBlock, with the attention within windows."""
    attention, normed = block.attn, block.norm1(tokens)
    dropout = attention.attn_drop.p if attention.training else 0.0
    heads = _heads(attention, normed, rotation)
    mixed = attend(heads, grid, window=window, relative=relative, dropout=dropout)
    mixed = attention.norm(mixed.transpose(1, 2).flatten(2))
    if attention.gate is not None:
        mixed = mixed * attention.gate(normed).sigmoid()
    branch = attention.proj_drop(attention.proj(mixed))
    tokens = tokens + block.drop_path1(_scaled(block, 1, branch))
    return tokens + block.drop_path2(_scaled(block, 2, block.mlp(block.norm2(tokens))))


def _scaled(block: Any, place: int, branch: Tensor) -> Tensor:
    """A branch of a block under its layer scale, `ls1` of Block and `gamma_1` of EvaBlock."""
    if hasattr(block, f"ls{place}"):
        scaled: Tensor = getattr(block, f"ls{place}")(branch)
        return scaled
    gamma: Tensor | None = getattr(block, f"gamma_{place}")
    return branch if gamma is None else gamma * branch


def _heads(attention: Any, tokens: Tensor, rotation: Tensor | None) -> Heads:
    """Queries, keys and values of timm's attention for tokens[N, P + H*W, C]; `rotation` is timm's rotary
    embedding of the patches."""
    if attention.qkv is None:
        parts = [layer(tokens) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    elif getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        parts = list(functional.linear(tokens, attention.qkv.weight, bias).chunk(3, dim=-1))
    else:
        parts = list(attention.qkv(tokens).chunk(3, dim=-1))
    q, k, v = (part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    q, k = attention.q_norm(q), attention.k_norm(k)
    if rotation is None:
        return Heads(q, k, v, q)
    return Heads(_rotate(attention, q, rotation).type_as(v), _rotate(attention, k, rotation).type_as(v), v, q)


def _rotate(attention: Any, x: Tensor, rotation: Tensor) -> Tensor:
    """x[N, A, P + H*W, D] with the patches turned by their place, and the tokens before them as they are."""
    from timm.layers import apply_rot_embed_cat

    prefix = attention.num_prefix_tokens
    turned = apply_rot_embed_cat(x[:, :, prefix:], rotation, half=attention.rotate_half)
    return torch.cat([x[:, :, :prefix], turned], dim=2)
