"""From the name of a backbone to the network, and from the names and shapes of tensors to the name.

`build_backbone` makes torchvision's ResNets (under torchvision's tensor names) and every timm model (under
timm's names). `architecture_of` goes the other way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.names import FULL_WIDTH, OUTPUT_STRIDES, RESNETS, STEMS, TIMM, Stem
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.backbones.timm import VARIANTS, TimmBackbone, head_count, timm_name
from siamtransfer.utils.errors import UserError

_COUNTER = "num_batches_tracked"
_VITS = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large", (1280, 32): "huge"}
"""timm's plain ViTs by the width of a token and the number of blocks."""


def build_backbone(
    name: str,
    *,
    width: int = FULL_WIDTH,
    stem: Stem = "imagenet",
    zero_init_residual: bool = False,
    drop_path: float = 0.0,
    stride_in_1x1: bool = False,
    output_stride: int = 32,
    heads: int | None = None,
) -> Backbone:
    """Constructs a backbone with random weights from the global generator.

    Args:
        name: one of torchvision's ResNets (RESNETS), one of VARIANTS, or a timm model, `timm:NAME` or just
            NAME where torchvision has none of that name.
        width, stem: choices of the ResNets only.
        zero_init_residual: sets the last norm of each residual block to zero, also in timm's models where
            they have such; a ViT has none.
        drop_path: the rate of stochastic depth in training, of timm's models only.
        stride_in_1x1: stride of bottleneck blocks in the first 1x1 convolution; of the ResNets only.
        output_stride: one of OUTPUT_STRIDES, of the ResNets only.
        heads: number of attention heads, of timm's plain ViTs only; None for timm's own.

    Raises:
        UserError: the name is unknown (the nearest known ones are named), or a choice does not apply.
    """
    if name in RESNETS:
        _check_resnet(name, width, stem, stride_in_1x1, output_stride)
        if drop_path:
            raise UserError(
                f"backbone.drop_path is {drop_path}, and {name} has no stochastic depth: leave it 0"
            )
        if heads is not None:
            raise UserError(f"{name} has no attention heads: leave heads out")
        return ResNetBackbone(
            name, width, stem, zero_init_residual, stride_in_1x1=stride_in_1x1, output_stride=output_stride
        )
    known = name if name in VARIANTS else timm_name(name)
    if width != FULL_WIDTH or stem != "imagenet":
        raise UserError(
            f"width and stem can be chosen for torchvision's ResNets only, not for {name}: leave them out"
        )
    if stride_in_1x1 or output_stride != OUTPUT_STRIDES[0]:
        raise UserError(
            f"stride_in_1x1 and output_stride can be chosen for torchvision's ResNets only, not for {name}: "
            "leave them out"
        )
    return TimmBackbone(known, zero_init_residual, drop_path, heads)


def _check_resnet(name: str, width: int, stem: str, stride_in_1x1: bool, output_stride: int) -> None:
    """Raises UserError where a choice does not exist for this ResNet."""
    if stem not in STEMS:
        raise UserError(f"backbone stem {stem!r} is unknown; take {', '.join(STEMS)}")
    if RESNETS[name].inner_width(width) < 1:
        raise UserError(f"backbone width {width} leaves {name} without channels; the full width is 64")
    if stride_in_1x1 and not RESNETS[name].bottleneck:
        raise UserError(f"{name} has no 1x1 convolution at the beginning of its blocks, which could stride")
    if output_stride not in OUTPUT_STRIDES:
        strides = ", ".join(map(str, OUTPUT_STRIDES))
        raise UserError(f"output stride {output_stride} is none of {strides}")


class Architecture(NamedTuple):
    """A backbone without its weights, as `build_backbone` takes it; width and stem are None for timm's.

    `heads` is None where the ViT has timm's number of heads, so that equal networks are equal here;
    `with_heads` keeps to that.
    """

    name: str
    width: int | None = None
    stem: Stem | None = None
    stride_in_1x1: bool = False
    output_stride: int = 32
    heads: int | None = None

    @classmethod
    def of(cls, backbone: Backbone) -> Architecture:
        """The architecture of a network."""
        return cls(*(getattr(backbone, field) for field in cls._fields))

    def with_heads(self, heads: int) -> Architecture:
        """The same ViT with this number of attention heads; MoCo v3's ViT-S gets its own name.

        Raises:
            UserError: it is no plain ViT, or the number does not divide its width.
        """
        if self.attention_heads == heads:
            return self
        base, _ = VARIANTS.get(self.name, (self.name.removeprefix(TIMM), {}))
        for name, (original, options) in VARIANTS.items():
            if original == base and options == {"num_heads": heads}:
                return self._replace(name=name, heads=None)
        plain = self._replace(name=TIMM + base if self.name not in RESNETS else self.name, heads=None)
        build_backbone(plain.name, heads=heads)  # refuses what cannot be
        return plain if head_count(plain.name) == heads else plain._replace(heads=heads)

    @property
    def attention_heads(self) -> int | None:
        """The number of attention heads of a plain ViT, given or timm's; None for other networks."""
        return self.heads if self.heads is not None else head_count(self.name)

    def as_dict(self) -> dict[str, Any]:
        """For records: name, width and stem, and of the others what differs from the usual."""
        usual = Architecture(self.name)
        shown = ("name", "width", "stem")
        return {
            field: value
            for field, value in self._asdict().items()
            if field in shown or value != getattr(usual, field)
        }

    def build(self) -> Backbone:
        """The network with random weights from the global generator."""
        if self.width is None or self.stem is None:
            return build_backbone(self.name, heads=self.heads)
        return build_backbone(
            self.name,
            width=self.width,
            stem=self.stem,
            stride_in_1x1=self.stride_in_1x1,
            output_stride=self.output_stride,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of each of its tensors, in the layers' order; draws no random number."""
        with torch.random.fork_rng(devices=[]), torch.device("meta" if self.name in RESNETS else "cpu"):
            return {name: tuple(tensor.shape) for name, tensor in self.build().state_dict().items()}

    def complete(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of `state` in the order of the layers, after a check of every name, shape, type and
        value.

        Batch counters, which only training reads, may be absent altogether (files from before 2018) and are
        then zero.

        Raises:
            ValueError: a tensor is missing, unexpected, of another shape or type, or not finite; names the
                first.
        """
        expected, name = self.shapes(), self.name
        unexpected = [key for key in state if key not in expected]
        if unexpected:
            raise ValueError(f"it has a tensor {unexpected[0]!r}, which {name} has not")
        has_counters = any(key.endswith(_COUNTER) for key in state)
        complete: dict[str, Tensor] = {}
        for key, shape in expected.items():
            if key not in state and key.endswith(_COUNTER) and not has_counters:
                complete[key] = torch.zeros((), dtype=torch.int64)
                continue
            if key not in state:
                raise ValueError(f"it lacks the tensor {key!r} of {name}")
            tensor = state[key].detach()
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"its tensor {key!r} has shape {tuple(tensor.shape)} where {name} has {shape}"
                )
            if tensor.is_floating_point() == key.endswith(_COUNTER):
                raise ValueError(f"its tensor {key!r} is of the wrong type {tensor.dtype}")
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(
                    f"its tensor {key!r} holds NaN or infinity: the training that wrote it had diverged"
                )
            complete[key] = tensor.contiguous()
        return complete


def architecture_of(shapes: dict[str, tuple[int, ...]]) -> Architecture:
    """The ResNet (torchvision's names) or plain ViT (timm's names) that has tensors of these names and
    shapes, judged by its first layers.

    Raises:
        ValueError: no backbone that `build_backbone` makes has these; says what differs.
    """
    if any(name.startswith(("patch_embed.", "blocks.")) for name in shapes):
        return _vit_of(shapes)
    if "conv1.0.weight" in shapes:
        raise ValueError("its stem has several convolutions (as timm's resnet50d has), torchvision's has one")
    conv1, conv2 = shapes.get("conv1.weight", ()), shapes.get("layer1.0.conv2.weight", ())
    if len(conv1) != 4 or len(conv2) != 4:
        raise ValueError("it lacks the first layers of a ResNet, conv1.weight and layer1.0.conv2.weight")
    width, channels, kernel, _ = conv1
    stems: dict[int, Stem] = {7: "imagenet", 3: "small"}
    if kernel not in stems or channels != 3:
        raise ValueError(
            f"its first convolution has shape {conv1}, not {width} x 3 x 7 x 7 or {width} x 3 x 3 x 3"
        )
    block = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    blocks = tuple(
        len({key.split(".")[1] for key in shapes if key.startswith(f"layer{s}.")}) for s in (1, 2, 3, 4)
    )
    groups = conv2[0] // conv2[1]
    for name, spec in RESNETS.items():
        same = (spec.block, spec.blocks, spec.groups) == (block, blocks, groups)
        if same and spec.inner_width(width) == conv2[0]:
            return Architecture(name, width, stems[kernel])
    kind = "Bottleneck" if block == "bottleneck" else "BasicBlock"
    raise ValueError(
        f"{blocks} {kind} blocks with {groups} groups, {width} and {conv2[0]} channels are none of "
        f"{', '.join(RESNETS)}"
    )


def _vit_of(shapes: dict[str, tuple[int, ...]]) -> Architecture:
    import timm

    if "patch_embed.proj.0.weight" in shapes:
        raise ValueError("its ViT has a convolutional stem, which no model of timm has")
    patches, positions = shapes.get("patch_embed.proj.weight", ()), shapes.get("pos_embed", ())
    if len(patches) != 4 or len(positions) != 3:
        raise ValueError("it lacks the first layers of a ViT, patch_embed.proj.weight and pos_embed")
    dim, _, patch, _ = patches
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    side = patch * math.isqrt(max(positions[1] - 1, 0))
    name = f"vit_{_VITS.get((dim, blocks), 'unknown')}_patch{patch}_{side}"
    if not timm.is_model(name):
        raise ValueError(
            f"a ViT of {blocks} blocks of width {dim} with patches of {patch} pixels for images of {side} is "
            "none of timm's plain ones"
        )
    return Architecture(TIMM + name)
