"""Networks in their authors' own layout, under timm's names: ConvNeXt, Swin Transformer, XCiT, BEiT, AIMv2.

`to_timm` recognises them by a tensor that only this layout has, whatever method trained the network and
whatever stands around it, and passes every other network on unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from siamtransfer.checkpoints.layouts.renaming import Rules, renamed, shaped_as_timms_convnext

Layout = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

_CONVNEXT_BLOCK = r"stages\.(\d+)\.(\d+)\."
_CONVNEXT: Rules = (
    (r"downsample_layers\.0\.", "stem."),
    (r"downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (_CONVNEXT_BLOCK + r"dwconv\.", r"stages.\1.blocks.\2.conv_dw."),
    (_CONVNEXT_BLOCK + r"norm\.", r"stages.\1.blocks.\2.norm."),
    (_CONVNEXT_BLOCK + r"pwconv([12])\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (_CONVNEXT_BLOCK + r"grn\.gamma$", r"stages.\1.blocks.\2.mlp.grn.weight"),
    (_CONVNEXT_BLOCK + r"grn\.beta$", r"stages.\1.blocks.\2.mlp.grn.bias"),
    (_CONVNEXT_BLOCK + r"gamma$", r"stages.\1.blocks.\2.gamma"),
    (r"norm\.", "head.norm."),
    (r"head\.", "head.fc."),
)
VICREGL_NOTES = (
    "VICRegL's authors take the mean of a ConvNeXt's last map after its norm; here, as in timm, the norm "
    "comes after the mean",
)
FCMAE_NOTES = (
    "the encoder of ConvNeXt V2's pretraining has no last norm; here a norm without scale and shift follows "
    "the mean of the last map",
)
_AIMV2: Rules = (
    (r"preprocessor\.patchifier\.", "patch_embed."),
    (r"preprocessor\.pos_embed$", "pos_embed"),
    (r"trunk\.blocks\.(\d+)\.norm_([12])\.", r"blocks.\1.norm\2."),
    (r"trunk\.blocks\.(\d+)\.attn\.(qkv|proj)\.", r"blocks.\1.attn.\2."),
    (r"trunk\.blocks\.(\d+)\.mlp\.fc1\.", r"blocks.\1.mlp.fc1_g."),
    (r"trunk\.blocks\.(\d+)\.mlp\.fc3\.", r"blocks.\1.mlp.fc1_x."),
    (r"trunk\.blocks\.(\d+)\.mlp\.fc2\.", r"blocks.\1.mlp.fc2."),
    (r"trunk\.post_trunk_norm\.", "norm."),
)


def to_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names.

    Raises:
        ValueError: they are in a layout of LAYOUTS, and one of them has no name there.
    """
    for mark, layout in LAYOUTS.items():
        if any(re.match(mark, name) for name in tensors):
            return layout(tensors)
    return dict(tensors)


def convnext(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ConvNeXt, its second version too (arXiv 2201.03545, 2301.00808). DINOv3's have a second name for the
    last norm, `norms.3`.

    Raises:
        ValueError: a name is none of a ConvNeXt's.
    """
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("norms.")}
    return shaped_as_timms_convnext(renamed(own, _CONVNEXT))


def vicregl(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """VICRegL's ConvNeXts, which were trained without layer scale; one of ones computes the same. Its ResNets
    are torchvision's.

    Raises:
        ValueError: a name is none of a ConvNeXt's, or there is a layer scale or a normalisation of responses.
    """
    result = to_timm(tensors)
    if not any(name.startswith("downsample_layers.") for name in tensors):
        return result
    if any(name.endswith((".gamma", ".mlp.grn.weight")) for name in result):
        raise ValueError("it has a layer scale or a global response normalisation, which VICRegL's have not")
    ends = {name: tensor for name, tensor in result.items() if name.endswith(".mlp.fc2.bias")}
    return result | {name.replace(".mlp.fc2.bias", ".gamma"): torch.ones_like(ends[name]) for name in ends}


def fcmae(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ConvNeXt V2 after pretraining by masking, whose encoder has no last norm; one without scale and shift
    takes its place.

    Raises:
        ValueError: a name is none of a ConvNeXt's, or there is a last norm or a classifier.
    """
    result = to_timm(tensors)
    last = next((name for name in result if name.startswith("head.")), None)
    if last is not None:
        raise ValueError(f"it has a tensor {last!r}, which comes after pretraining alone")
    widths = [
        tensor for name, tensor in result.items() if re.match(r"stages\.\d+\.blocks\.0\.norm\.bias", name)
    ]
    if not widths:
        return result
    return result | {
        "head.norm.weight": torch.ones_like(widths[-1]),
        "head.norm.bias": torch.zeros_like(widths[-1]),
    }


def sparse_convnext(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ConvNeXt V2 as its pretraining by masking stores it, with the sparse convolutions of MinkowskiEngine.

    A sparse convolution's `kernel` is [positions, in, out], or [positions, channels] of a depthwise one; the
    positions are those of a square whose first axis is the width.

    Raises:
        ValueError: a kernel is of no square, or a name is none of a ConvNeXt's.
    """
    dense = {}
    for name, tensor in tensors.items():
        if name.endswith(".kernel"):
            dense[name.removesuffix("kernel") + "weight"] = _dense_kernel(name, tensor)
        else:
            name = name.replace(".ln.", ".").replace(".linear.", ".")
            dense[name] = tensor
    return convnext(dense)


def _dense_kernel(name: str, kernel: Tensor) -> Tensor:
    """The weight [out, in, height, width] of a sparse convolution."""
    side = math.isqrt(len(kernel))
    if kernel.ndim not in (2, 3) or side * side != len(kernel):
        raise ValueError(f"its tensor {name!r} of shape {tuple(kernel.shape)} is no kernel of a square")
    if kernel.ndim == 2:
        kernel = kernel[:, None, :]
    inputs, outputs = kernel.shape[1:]
    return kernel.permute(2, 1, 0).reshape(outputs, inputs, side, side).transpose(2, 3).contiguous()


def swin(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Swin Transformers. What halves the resolution ends a stage there and begins the next one in timm; masks
    and indices follow from the sizes."""
    result = {}
    for name, tensor in tensors.items():
        if name.endswith((".relative_position_index", ".attn_mask", ".relative_coords_table")):
            continue
        name = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)
        result[re.sub(r"^head\.(?!fc\.)", "head.fc.", name)] = tensor
    return result


def xcit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """XCiT (arXiv 2106.09681): one tensor of its class attention is three in timm."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block, fused, kind = name.partition(".attn.qkv.")
        if fused and block.startswith("cls_attn_blocks."):
            parts = zip("qkv", tensor.chunk(3), strict=True)
            result |= {f"{block}.attn.{letter}.{kind}": part.contiguous() for letter, part in parts}
        else:
            result[re.sub(r"^pos_embeder\.", "pos_embed.", name)] = tensor
    return result


def beit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BEiT and what grew out of it (BEiT v2, data2vec). A table of relative positions that all blocks share
    is given to each, as their fine-tuning does; indices follow from the sizes."""
    result = {
        name: tensor for name, tensor in tensors.items() if not name.endswith("relative_position_index")
    }
    shared = result.pop("rel_pos_bias.relative_position_bias_table", None)
    if shared is not None:
        blocks = {name.split(".")[1] for name in result if name.startswith("blocks.")}
        result |= {f"blocks.{block}.attn.relative_position_bias_table": shared for block in blocks}
    return result


def of_images(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, which are those of a network for images.

    Raises:
        ValueError: a convolution has an axis of time.
    """
    for name, tensor in tensors.items():
        if tensor.ndim == 5:
            raise ValueError(
                f"it takes videos, for its tensor {name!r} has an axis of time: such are not read"
            )
    return to_timm(tensors)


def aimv2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AIMv2's vision transformers.

    Raises:
        ValueError: a name is none of theirs.
    """
    return renamed(tensors, _AIMV2)


LAYOUTS: Mapping[str, Layout] = {
    r"downsample_layers\.\d+\.\d+\.kernel$": sparse_convnext,
    r"stages\.\d+\.\d+\.dwconv\.": convnext,
    r"layers\.\d+\.blocks\.\d+\.attn\.relative_position_index$": swin,
    r"layers\.0\.downsample\.": swin,
    r"cls_attn_blocks\.\d+\.attn\.qkv\.": xcit,
    r"(blocks\.\d+\.attn|rel_pos_bias)\.relative_position_index$": beit,
    r"preprocessor\.patchifier\.": aimv2,
}
"""The layouts by a regular expression for the beginning of a name that no other has."""
