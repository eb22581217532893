"""Dense features: the map of a layer of a backbone, x[N, 3, H, W] -> [N, C, h, w].

A selection is names of layers joined by `+`, as in feature_layers.py. Layers of a ResNet: `layer1` to
`layer4`. Layers of a ViT: `blockN` (the patch tokens after block N, counted from 1, through the final norm)
and `lastN` (those of the last N blocks, side by side). Any backbone has `output`, its last map: layer4 of a
ResNet, the last block of a ViT, the last stage of timm's other networks. Class and register tokens belong to
no map.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_layers import OUTPUT, has_class_token
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.utils.errors import UserError

_STAGES = ("layer1", "layer2", "layer3", "layer4")


class FeatureMaps(nn.Module):
    """x[N, 3, H, W] -> the map of a selection, [N, C, h, w] in the precision of the forward pass.

    Maps of several layers of a ResNet have different sizes. The smaller ones are enlarged bilinearly
    (align_corners false) to the largest, and the channels stand side by side.

    With `class_token` every cell also gets the class token of the same block of a ViT, after its map.

    Attributes:
        layers: the names of the selected layers, in the order of their channels.
        multiple: H and W have to be multiples of this: the side of a patch, 1 for networks of convolutions.

    Raises:
        UserError: the backbone has no such layer (says which there are), no maps, or no class token.
    """

    def __init__(self, backbone: Backbone, selection: str = OUTPUT, *, class_token: bool = False):
        super().__init__()
        self.backbone = backbone
        self.layers = _parse(backbone, selection)
        self.class_token = class_token
        if class_token and not has_class_token(backbone):
            raise UserError(f"{backbone.name} has no class token beside its patches: leave --class-token out")
        self.multiple = patch_side(backbone) or 1

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.backbone, ResNetBackbone):
            stages = dict(zip(_STAGES, self.backbone.stages(x), strict=True))
            maps = [stages[layer] for layer in self.layers]
        elif self.layers == [OUTPUT]:
            maps = [self._intermediates(x, 1)[0]]
        else:
            numbers = [int(layer.removeprefix("block")) - 1 for layer in self.layers]
            indices = sorted(set(numbers))
            found = dict(zip(indices, self._intermediates(x, indices), strict=True))
            maps = [found[number] for number in numbers]
        largest = max((tuple(m.shape[2:]) for m in maps), key=lambda size: size[0] * size[1])
        return torch.cat([_enlarge(m, largest) for m in maps], dim=1)

    def _intermediates(self, x: Tensor, indices: int | list[int]) -> list[Tensor]:
        """timm's maps of the last `indices` blocks (or stages), or of those with these numbers from 0."""
        model: Any = self.backbone.model
        norm = {"norm": True} if hasattr(model, "blocks") else {}
        found = model.forward_intermediates(
            x,
            indices=indices,
            intermediates_only=True,
            output_fmt="NCHW",
            **({"return_prefix_tokens": True} if self.class_token else {}),
            **norm,
        )
        if not self.class_token:
            maps: list[Tensor] = found
            return maps
        return [torch.cat([m, prefix[:, 0, :, None, None].expand_as(m)], dim=1) for m, prefix in found]


def patch_side(backbone: Backbone) -> int | None:
    """The side in pixels of the patches of a ViT; None for other networks."""
    model = getattr(backbone, "model", None)
    if not hasattr(model, "blocks"):
        return None
    size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if size is None:
        return None
    sides = {int(side) for side in size} if isinstance(size, tuple) else {int(size)}
    return sides.pop() if len(sides) == 1 else None


def fixed_size(backbone: Backbone) -> tuple[int, int] | None:
    """Height and width of the only images that a network of timm takes; None where it takes other sizes, as
    ResNets and plain ViTs do (their positions are interpolated)."""
    embedding = getattr(getattr(backbone, "model", None), "patch_embed", None)
    size = getattr(embedding, "img_size", None)
    if size is None or not getattr(embedding, "strict_img_size", False):
        return None
    height, width = size
    return int(height), int(width)


def map_layers(backbone: Backbone) -> list[str]:
    """The names of the layers of a backbone that have a map; empty where it has none."""
    if isinstance(backbone, ResNetBackbone):
        return [OUTPUT, *_STAGES]
    model: Any = backbone.model
    if not hasattr(model, "forward_intermediates"):
        return []
    if patch_side(backbone) is None:
        return [OUTPUT]
    return [OUTPUT, *(f"block{n}" for n in range(1, len(model.blocks) + 1))]


def _parse(backbone: Backbone, selection: str) -> list[str]:
    """The names of the layers in a selection; `lastN` is written out, and `output` of a ResNet or a ViT is
    the name of its last layer."""
    known = map_layers(backbone)
    if not known:
        raise UserError(f"{backbone.name} has no maps of features: its tokens have no place in the image")
    blocks = [layer for layer in known if layer.startswith("block")]
    layers: list[str] = []
    for name in selection.split("+"):
        last = re.fullmatch(r"last(\d+)", name)
        if name == OUTPUT:
            layers.append(known[-1])
        elif last and 0 < int(last[1]) <= len(blocks):
            layers += blocks[-int(last[1]) :]
        elif name in known:
            layers.append(name)
        else:
            raise UserError(
                f"{backbone.name} has no map of a layer {name!r}; choose from {', '.join(known)}"
                + (", lastN" if blocks else "")
                + ", or several joined by +"
            )
    return list(dict.fromkeys(layers))


def _enlarge(features: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map of this size, by bilinear interpolation where it is smaller."""
    if tuple(features.shape[2:]) == size:
        return features
    return functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
