"""Trunks without a head: images x[N, 3, H, W] float to features h[N, D].

`build_backbone` makes torchvision's ResNets (under torchvision's tensor names, of any width, also with the
small-image stem) and every timm model (under timm's names). `architecture_of` goes the other way, from the
names and shapes of tensors to the trunk that they belong to.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from siamtransfer.utils.errors import UserError

Stem = Literal["imagenet", "small", "small-pad2"]
FULL_WIDTH = 64
_COUNTER = "num_batches_tracked"
TIMM = "timm:"
# Trunks of timm's classes that timm has no name for: the model that they start from, and what differs.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_small_moco_v3": ("vit_small_patch16_224", {"num_heads": 12}),
}
# timm's plain ViTs by the width of a token and the number of blocks.
_VITS = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large", (1280, 32): "huge"}


class Design(NamedTuple):
    """What tells torchvision's ResNets apart: the block, its number per stage, and ResNeXt's two numbers."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64

    @property
    def bottleneck(self) -> bool:
        return self.block is Bottleneck

    def inner_width(self, width: int) -> int:
        """The channels of the 3x3 convolutions in the first stage's blocks."""
        return int(width * self.width_per_group / 64) * self.groups


RESNETS = {
    "resnet18": Design(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Design(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Design(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Design(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Design(Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": Design(Bottleneck, (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": Design(Bottleneck, (3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": Design(Bottleneck, (3, 4, 23, 3), groups=64, width_per_group=4),
    "wide_resnet50_2": Design(Bottleneck, (3, 4, 6, 3), width_per_group=128),
    "wide_resnet101_2": Design(Bottleneck, (3, 4, 23, 3), width_per_group=128),
}


class Backbone(nn.Module):
    """What every backbone offers beyond `forward`, x[N, 3, H, W] to h[N, D]."""

    name: str  # as `build_backbone` takes it
    width: int | None  # channels of a ResNet's stem; None for timm's models, which have neither choice
    stem: Stem | None
    dim: int  # D

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.name, self.width, self.stem)


class ResNetBackbone(Backbone):
    """torchvision's ResNet without its classifier: x[N, 3, H, W] to h[N, D], the mean over the last stage.

    `width` is the number of channels of the stem (64 in the papers); every stage scales with it. The "small"
    stem is the one for images of about 32 pixels: a 3x3 convolution of stride 1 and no max-pooling;
    "small-pad2" is solo-learn's, which pads by two pixels instead of one and so keeps two more. The
    initialisation is torchvision's: He for convolutions, ones and zeros for batch norm, and with
    `zero_init_residual` zero for the last batch norm of each block (Goyal et al. 2017, section 5.1).
    """

    def __init__(self, name: str, width: int, stem: Stem, zero_init_residual: bool):
        super().__init__()
        design = RESNETS[name]
        self.name, self.width, self.stem = name, width, stem
        self.dim = 8 * width * design.block.expansion

        small = stem != "imagenet"
        if small:
            self.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1 if stem == "small" else 2, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        out = design.block.expansion
        self.layer1 = _stage(design, 0, width, width, stride=1)
        self.layer2 = _stage(design, 1, width * out, 2 * width, stride=2)
        self.layer3 = _stage(design, 2, 2 * width * out, 4 * width, stride=2)
        self.layer4 = _stage(design, 3, 4 * width * out, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self._initialise(zero_init_residual)

    def _initialise(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
            elif zero_init_residual and isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The outputs of layer1 to layer4 (Detectron2's res2 to res5), each [N, C, H', W']."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.avgpool(self.stages(x)[-1]), 1)


def _stage(design: Design, index: int, channels: int, planes: int, stride: int) -> nn.Sequential:
    """A stage of torchvision's blocks; the first one changes stride and channels and so has a projection."""
    block, out = design.block, planes * design.block.expansion
    projection = None
    if stride != 1 or channels != out:
        projection = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    widths = {"groups": design.groups, "base_width": design.width_per_group}
    first = block(channels, planes, stride, projection, **widths)
    return nn.Sequential(first, *(block(out, planes, **widths) for _ in range(1, design.blocks[index])))


class TimmBackbone(Backbone):
    """A timm model without its classifier; in `state_dict` its tensors keep timm's names."""

    def __init__(self, name: str, zero_init_residual: bool, drop_path: float = 0.0):
        super().__init__()
        original, changes = VARIANTS.get(name, (name.removeprefix(TIMM), {}))
        if drop_path:
            changes = {**changes, "drop_path_rate": drop_path}
        model = _create(original, changes)
        self.name, self.width, self.stem = name, None, None
        self.dim = getattr(model, "head_hidden_size", None) or model.num_features
        if zero_init_residual:
            for module in model.modules():
                if hasattr(module, "zero_init_last"):
                    module.zero_init_last()
        self.model = model
        self.register_load_state_dict_pre_hook(_add_model_prefix)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return self.model.state_dict(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _create(name: str, options: dict[str, Any]) -> Any:
    """timm's model without a classifier; a ViT takes images of any size, as local crops are, by interpolating
    its positions."""
    import timm

    options = {"pretrained": False, "num_classes": 0, **options}
    try:
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:  # no ViT
        return timm.create_model(name, **options)


def _add_model_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}model.{name.removeprefix(prefix)}"] = state.pop(name)


def build_backbone(
    name: str,
    *,
    width: int = FULL_WIDTH,
    stem: Stem = "imagenet",
    zero_init_residual: bool = False,
    drop_path: float = 0.0,
) -> Backbone:
    """Constructs a trunk with random weights from the global generator.

    `name` is one of torchvision's ResNets (`RESNETS`), one of VARIANTS, or a timm model, `timm:NAME` or just
    NAME where torchvision has none of that name. `width` and `stem` are choices of the ResNets only. With
    `zero_init_residual`, timm's models set their last norms to zero where they have such; a ViT has none.
    `drop_path` is the rate of stochastic depth in training, of timm's models only.

    Raises:
        UserError: the name is unknown (the nearest known ones are named), or width or stem do not apply.
    """
    if name in RESNETS:
        if stem not in get_args(Stem):
            raise UserError(f"backbone stem {stem!r} is unknown; take {', '.join(get_args(Stem))}")
        if drop_path:
            raise UserError(
                f"backbone.drop_path is {drop_path}, and {name} has no stochastic depth: leave it 0"
            )
        if RESNETS[name].inner_width(width) < 1:
            raise UserError(f"backbone width {width} leaves {name} without channels; the full width is 64")
        return ResNetBackbone(name, width, stem, zero_init_residual)
    known = name if name in VARIANTS else timm_name(name)
    if width != FULL_WIDTH or stem != "imagenet":
        raise UserError(
            f"width and stem can be chosen for torchvision's ResNets only, not for {name}: leave them out"
        )
    return TimmBackbone(known, zero_init_residual, drop_path)


def timm_name(name: str) -> str:
    """`timm:NAME` for a model that timm knows under `name`, with or without the prefix."""
    import timm

    bare = name.removeprefix(TIMM)
    if not timm.is_model(bare):
        known = dict.fromkeys([*RESNETS, *VARIANTS, *timm.list_models()])
        nearest = difflib.get_close_matches(bare.lower(), known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known are {', '.join(RESNETS)}"
        raise UserError(f"backbone {name!r} is neither a ResNet of torchvision nor a timm model; {hint}")
    return TIMM + bare


class Architecture(NamedTuple):
    """A trunk as `build_backbone` takes it; width and stem are None for timm's."""

    name: str
    width: int | None = None
    stem: Stem | None = None

    def build(self) -> Backbone:
        if self.width is None or self.stem is None:
            return build_backbone(self.name)
        return build_backbone(self.name, width=self.width, stem=self.stem)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of each of its tensors, in the layers' order; draws no random number."""
        with torch.random.fork_rng(devices=[]), torch.device("meta" if self.name in RESNETS else "cpu"):
            return {name: tuple(tensor.shape) for name, tensor in self.build().state_dict().items()}

    def complete(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of `state` in the order of the layers, after a check of every name, shape, type and
        value.

        Batch counters, which only training reads, may be absent altogether (files from before 2018) and are
        then zero. Raises ValueError with the first difference.
        """
        expected, name = self.shapes(), self.name
        extra = [key for key in state if key not in expected]
        if extra:
            raise ValueError(f"it has a tensor {extra[0]!r}, which {name} has not")
        counted = any(key.endswith(_COUNTER) for key in state)
        complete: dict[str, Tensor] = {}
        for key, shape in expected.items():
            if key not in state and key.endswith(_COUNTER) and not counted:
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
    """The ResNet (torchvision's names) or plain ViT (timm's) that has tensors of these names and shapes,
    judged by its first layers.

    Raises:
        ValueError: none that `build_backbone` makes looks like this; says what is in the way.
    """
    if any(name.startswith(("patch_embed.", "blocks.")) for name in shapes):
        return _vit_of(shapes)
    if "conv1.0.weight" in shapes:
        raise ValueError("its stem has several convolutions (as timm's resnet50d has), torchvision's has one")
    conv1, conv2 = shapes.get("conv1.weight", ()), shapes.get("layer1.0.conv2.weight", ())
    if len(conv1) != 4 or len(conv2) != 4:
        raise ValueError("it lacks the first layers of a ResNet, conv1.weight and layer1.0.conv2.weight")
    width, channels, kernel, _ = conv1
    stem: Stem | None = {7: "imagenet", 3: "small"}.get(kernel)  # type: ignore[assignment]
    if stem is None or channels != 3:
        raise ValueError(
            f"its first convolution has shape {conv1}, not {width} x 3 x 7 x 7 or {width} x 3 x 3 x 3"
        )
    block = Bottleneck if "layer1.0.conv3.weight" in shapes else BasicBlock
    blocks = tuple(
        len({key.split(".")[1] for key in shapes if key.startswith(f"layer{s}.")}) for s in (1, 2, 3, 4)
    )
    groups = conv2[0] // conv2[1]
    for name, design in RESNETS.items():
        same = (design.block, design.blocks, design.groups) == (block, blocks, groups)
        if same and design.inner_width(width) == conv2[0]:
            return Architecture(name, width, stem)
    raise ValueError(
        f"{blocks} {block.__name__} blocks with {groups} groups, {width} and {conv2[0]} channels are none of "
        f"{', '.join(RESNETS)}"
    )


def _vit_of(shapes: dict[str, tuple[int, ...]]) -> Architecture:
    import timm

    if "patch_embed.proj.0.weight" in shapes:
        raise ValueError("its ViT has a convolutional stem, which no model of timm has")
    patches, places = shapes.get("patch_embed.proj.weight", ()), shapes.get("pos_embed", ())
    if len(patches) != 4 or len(places) != 3:
        raise ValueError("it lacks the first layers of a ViT, patch_embed.proj.weight and pos_embed")
    dim, _, patch, _ = patches
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    side = patch * math.isqrt(max(places[1] - 1, 0))
    name = f"vit_{_VITS.get((dim, blocks), 'unknown')}_patch{patch}_{side}"
    if not timm.is_model(name):
        raise ValueError(
            f"a ViT of {blocks} blocks of width {dim} with patches of {patch} pixels for images of {side} is "
            "none of timm's plain ones"
        )
    return Architecture(TIMM + name)
