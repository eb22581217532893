"""Which layers of a backbone the features come from: by name, several side by side.

A selection is names of layers joined by `+`. Layers of a ResNet: `layer1` to `layer4`, each the mean over its
map. Layers of a ViT: `class` (the class token of the last block), `blockN` (that after block N, counted from
1), `lastN` (those of the last N blocks) and `mean` (the mean patch token of the last block), each through the
final norm of the tokens, where the network has one; with `-prenorm` behind the name, before it. Any backbone
has `output`, what the network itself gives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.utils.errors import UserError

OUTPUT = "output"
RESNET_LAYERS = ["layer1", "layer2", "layer3", "layer4"]
CLASS, MEAN = "class", "mean"
PRENORM = "-prenorm"
_BLOCK = re.compile(r"block(\d+)")


class FeatureLayers(nn.Module):
    """x[N, 3, H, W] -> the layers of all `selections`, each once, side by side: h[N, D].

    Attributes:
        layers: the names of the layers, in the order of their columns in h.
        widths: the number of columns of each layer, in the same order; known after the first forward.

    Raises:
        UserError: the backbone has no such layer; says which there are.
    """

    def __init__(self, backbone: Backbone, selections: Sequence[str] = (OUTPUT,)):
        super().__init__()
        self.backbone = backbone
        self.selections = {selection: _parse(backbone, selection) for selection in selections}
        self.layers = list(dict.fromkeys(layer for layers in self.selections.values() for layer in layers))
        self.widths: dict[str, int] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.layers == [OUTPUT]:
            features = {OUTPUT: self.backbone(x)}
        elif isinstance(self.backbone, ResNetBackbone):
            features = _resnet_features(self.backbone, x)
        else:
            features = _vit_features(self.backbone, x, self.layers)
        self.widths = {layer: features[layer].shape[1] for layer in self.layers}
        return torch.cat([features[layer] for layer in self.layers], dim=1)

    def select(self, h: Tensor, selection: str) -> Tensor:
        """The columns of h[N, D] that belong to one of the selections."""
        columns = dict(zip(self.layers, h.split(list(self.widths.values()), dim=1), strict=True))
        chosen = [columns[layer] for layer in self.selections[selection]]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=1)

    def measure(self, size: int) -> None:
        """Sets `widths` by a forward of one black image of `size` pixels, before any other forward."""
        device = next(self.backbone.parameters()).device
        training = self.backbone.training
        self.backbone.eval()
        with torch.no_grad():
            self(torch.zeros(1, self.backbone.in_channels, size, size, device=device))
        self.backbone.train(training)


def _parse(backbone: Backbone, selection: str) -> list[str]:
    """The names of the layers in a selection, `lastN` written out."""
    known = _known_layers(backbone)
    before_norm = [f"{layer}{PRENORM}" for layer in known[1:]] if MEAN in known else []
    layers: list[str] = []
    for name in selection.split("+"):
        ending = PRENORM if name.endswith(PRENORM) else ""
        last = re.fullmatch(r"last(\d+)", name.removesuffix(ending))
        blocks = [layer for layer in known if layer.startswith("block")]
        if last and 0 < int(last[1]) <= len(blocks):
            layers += [f"{block}{ending}" for block in blocks[-int(last[1]) :]]
        elif name in known or name in before_norm:
            layers.append(name)
        else:
            raise UserError(
                f"{backbone.name} has no layer {name!r}; choose from {', '.join(known)}"
                + (", lastN" if blocks else "")
                + (f", with {PRENORM} behind one: before the last norm" if MEAN in known else "")
                + ", or several joined by +"
            )
    return layers


def _known_layers(backbone: Backbone) -> list[str]:
    if isinstance(backbone, ResNetBackbone):
        return [OUTPUT, *RESNET_LAYERS]
    model: Any = backbone.model
    if not hasattr(model, "blocks") or not hasattr(model, "num_prefix_tokens"):
        return [OUTPUT]
    if not has_class_token(backbone):
        return [OUTPUT, MEAN]
    return [OUTPUT, *(f"block{n}" for n in range(1, len(model.blocks) + 1)), CLASS, MEAN]


def has_class_token(backbone: Backbone) -> bool:
    """Whether the network has a token of the whole image beside its patches."""
    model = getattr(backbone, "model", None)
    return bool(getattr(model, "num_prefix_tokens", 0)) and getattr(model, "cls_token", None) is not None


def _resnet_features(backbone: ResNetBackbone, x: Tensor) -> dict[str, Tensor]:
    pooled = [stage.mean(dim=(2, 3)) for stage in backbone.stages(x)]
    return {OUTPUT: pooled[-1], **{f"layer{n}": h for n, h in enumerate(pooled, 1)}}


def _vit_features(backbone: Backbone, x: Tensor, layers: list[str]) -> dict[str, Tensor]:
    features = {OUTPUT: backbone(x)} if OUTPUT in layers else {}
    for ending in ("", PRENORM):
        chosen = (layer for layer in layers if layer != OUTPUT and layer.endswith(PRENORM) == bool(ending))
        names = {layer: layer.removesuffix(PRENORM) for layer in chosen}
        if names:
            tokens = _tokens(backbone.model, x, list(names.values()), normed=not ending)
            features |= {layer: tokens[name] for layer, name in names.items()}
    return features


def _tokens(model: Any, x: Tensor, names: list[str], *, normed: bool) -> dict[str, Tensor]:
    """The class tokens of blocks and the mean of the last patches, each [N, D], by the names of layers; all
    through the final norm, or none."""
    last = len(model.blocks)
    blocks = {name: int(match[1]) if (match := _BLOCK.fullmatch(name)) else last for name in names}
    indices = sorted({block - 1 for block in blocks.values()})
    found = model.forward_intermediates(
        x, indices=indices, return_prefix_tokens=True, norm=normed, output_fmt="NLC", intermediates_only=True
    )
    by_block = {index + 1: tokens for index, tokens in zip(indices, found, strict=True)}
    features = {}
    for name, block in blocks.items():
        tokens = by_block[block]
        patches, prefix = tokens if isinstance(tokens, tuple) else (tokens, tokens)  # no prefix: mean alone
        features[name] = patches.mean(dim=1) if name == MEAN else prefix[:, 0]
    return features
