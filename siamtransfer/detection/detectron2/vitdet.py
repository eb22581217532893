"""A plain ViT for the ViT of Detectron2's main branch (`detectron2.modeling.backbone.vit`): OUT.pkl alone.

That branch trains ViTDet (Li et al. 2022, arXiv 2203.16527) by its own code, configured in Python
(LazyConfig). Its ViT has timm's names of tensors, without class token and last norm, and new relative
positions. What its blocks lack (layer scale, registers, rotary positions, norms of queries and keys) would
change the features, so networks with these are refused. Needs no Detectron2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.assumptions import say_assumptions
from siamtransfer.checkpoints.conversion import Conversion, provenance_of
from siamtransfer.checkpoints.file_format import Normalisation
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of
from siamtransfer.detection.detectron2.weights_file import to_float32, write_pickle
from siamtransfer.detection.vit_pyramid import VitOptions
from siamtransfer.detection.vit_trunk import own_patch, why_no_plain_vit
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say

LAYOUT = "vitdet"
TRUNK = "backbone.net."
"""Stands before the ViT's names in a detector of that branch."""
PATCH = 16
"""The side in pixels of the patches from which its pyramid has the strides 4 to 32."""
_LEFT_OUT = ("cls_token", "norm", "fc_norm", "attn_pool")
_EPS = 1e-6
_NET = "model.backbone.net."


def write_vitdet(read: ReadBackbone, out: Path, *, dry_run: bool) -> Conversion:
    """Writes `out` for a plain ViT, and prints what a LazyConfig has to state for it.

    Raises:
        UserError: the network does not fit that branch's ViT, or `out` cannot be written.
    """
    state = {name: to_float32(tensor) for name, tensor in read.state.items()}
    weights = vitdet_weights(state, read.architecture, read.path)
    settings = vitdet_settings(read.architecture, read.normalisation, str(out))
    say(read.summary())
    if not dry_run:
        with atomic_write(out) as file:
            write_pickle(weights, file)
        say(f"wrote {out}")
    left_out = [name for name in state if f"{TRUNK}{name}" not in weights]
    say(f"{len(weights)} tensors by the names of Detectron2's main branch, without {', '.join(left_out)}")
    say("what its LazyConfig has to state:")
    for key, value in settings.items():
        say(f"  {key} = {value!r}")
    say_assumptions(read)
    paths = () if dry_run else (out,)
    return Conversion(
        metrics={
            "tensors": float(len(weights)),
            "parameters": float(sum(map(Tensor.numel, weights.values()))),
        },
        protocol={
            "proof": "names and shapes alone: its ViT has no class token, so its maps are others",
            "layouts": [LAYOUT],
            "branch": read.branch,
            "left_out": left_out,
            "settings": settings,
        },
        provenance=provenance_of(read, digest_of(state), paths),
        paths=paths,
    )


def vitdet_weights(state: dict[str, Tensor], architecture: Architecture, path: str) -> dict[str, Tensor]:
    """The tensors of the backbone in `path` by the names of a detector, in the order of `state`.

    Raises:
        UserError: that branch's ViT would compute something else, or has other tensors.
    """
    model = _plain_model(architecture, path)
    weights = {f"{TRUNK}{name}": tensor for name, tensor in state.items() if not _is_left_out(name)}
    expected = _expected_shapes(model)
    for name in sorted(weights.keys() | expected.keys()):
        if name not in expected:
            raise _refused(path, f"it has {name.removeprefix(TRUNK)}, for which that ViT has no place")
        if name not in weights:
            raise _refused(path, f"it has no {name.removeprefix(TRUNK)}")
        if tuple(weights[name].shape) != expected[name]:
            found, wanted = tuple(weights[name].shape), expected[name]
            raise _refused(path, f"{name.removeprefix(TRUNK)} is {found}, and that ViT has {wanted}")
    return weights


def vitdet_settings(
    architecture: Architecture, normalisation: Normalisation, weights: str
) -> dict[str, object]:
    """What a LazyConfig of that branch has to state for the weights, key to value.

    `weights` becomes train.init_checkpoint; means and stds are in units of 0..255.
    """
    model = _meta_model(architecture).model
    depth, block = len(model.blocks), model.blocks[0]
    windows = VitOptions(global_blocks=min(VitOptions.global_blocks, depth)).windows(depth)
    settings: dict[str, object] = {
        "train.init_checkpoint": weights,
        "model.pixel_mean": [255 * value for value in normalisation.mean],
        "model.pixel_std": [255 * value for value in normalisation.std],
        "model.input_format": "RGB",
        f"{_NET}embed_dim": int(model.embed_dim),
        f"{_NET}depth": depth,
        f"{_NET}num_heads": int(block.attn.num_heads),
        f"{_NET}mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
        f"{_NET}qkv_bias": block.attn.qkv.bias is not None,
        f"{_NET}pretrain_img_size": int(model.patch_embed.grid_size[0]) * PATCH,
        f"{_NET}pretrain_use_cls_token": _has_place_of_class_token(model),
        f"{_NET}window_block_indexes": [number for number, window in enumerate(windows) if window],
    }
    if block.norm1.eps != _EPS:
        settings[f"{_NET}norm_layer"] = f"partial(torch.nn.LayerNorm, eps={block.norm1.eps:g})"
    return settings


def _meta_model(architecture: Architecture) -> Any:
    """The backbone without numbers."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return architecture.build()


def _plain_model(architecture: Architecture, path: str) -> Any:
    """timm's model, after all checks that its tensors do not answer.

    Raises:
        UserError: that branch's ViT would compute something else.
    """
    from timm.layers import Attention, PatchEmbed
    from timm.models.vision_transformer import Block, VisionTransformer

    backbone = _meta_model(architecture)
    if reason := why_no_plain_vit(backbone):
        raise _refused(path, reason)
    model: Any = backbone.model
    if not isinstance(model, VisionTransformer) or type(model.patch_embed) is not PatchEmbed:
        raise _refused(path, f"its patches or positions are those of timm's {type(model).__name__}")
    if own_patch(model) != PATCH:
        raise _refused(
            path, f"its patches have {own_patch(model)} pixels, and the levels of that branch need {PATCH}"
        )
    if architecture.in_channels != 3:
        raise _refused(path, f"it takes images of {architecture.in_channels} channels")
    if len(set(model.patch_embed.grid_size)) != 1:
        raise _refused(path, "its positions are no square")
    for block in model.blocks:
        if type(block) is not Block or type(block.attn) is not Attention:
            raise _refused(path, f"its blocks have timm's {type(block.attn).__name__}")
        if not _is_gelu(block.mlp.act):
            raise _refused(path, f"its activation is {type(block.mlp.act).__name__} instead of GELU")
        if not type(block.norm1) is type(block.norm2) is type(model.blocks[0].norm1):
            raise _refused(path, "its norms differ from each other")
    return model


def _is_gelu(activation: Any) -> bool:
    """Whether it is the exact GELU, whatever its class."""
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    return bool(torch.allclose(activation(x), functional.gelu(x), rtol=0, atol=1e-9))


def _is_left_out(name: str) -> bool:
    """Class token, last norm and pooling, which that ViT does without."""
    return name.split(".")[0] in _LEFT_OUT


def _has_place_of_class_token(model: Any) -> bool:
    """Whether the first of the positions is that of a class token."""
    return bool(model.pos_embed.shape[1] != model.patch_embed.num_patches)


def _expected_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Every tensor of that branch's ViT that a pretrained network gives it."""
    channels, hidden = int(model.embed_dim), int(model.blocks[0].mlp.fc1.out_features)
    positions = model.patch_embed.num_patches
    if model.pos_embed is not None:
        positions += int(_has_place_of_class_token(model))
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (channels, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (channels,),
        "pos_embed": (1, positions, channels),
    }
    linear = {"attn.qkv": (3 * channels, channels), "attn.proj": (channels, channels)}
    linear |= {"mlp.fc1": (hidden, channels), "mlp.fc2": (channels, hidden)}
    for number, block in enumerate(model.blocks):
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{number}.{norm}.{tensor}": (channels,) for tensor in ("weight", "bias")}
        for layer, (out, into) in linear.items():
            shapes[f"blocks.{number}.{layer}.weight"] = (out, into)
            if layer != "attn.qkv" or block.attn.qkv.bias is not None:
                shapes[f"blocks.{number}.{layer}.bias"] = (out,)
    return {f"{TRUNK}{name}": shape for name, shape in shapes.items()}


def _refused(path: str, reason: str) -> UserError:
    return UserError(
        f"{path} does not fit the ViT of Detectron2's main branch: {reason}; leave --layout out, which runs "
        "timm's own layers"
    )
