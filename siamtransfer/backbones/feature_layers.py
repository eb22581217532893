"""Which layers of a backbone the features come from: by name, several side by side.

A selection is names of layers joined by `+`. Layers of a ResNet: `layer1` to `layer4`, each the mean over its
map. Layers of a ViT: `blockN` (the class token after block N, counted from 1, through the final norm),
`lastN` (those of the last N blocks) and `mean` (the mean patch token of the last block). Any backbone has
`output`.
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
    layers: list[str] = []
    for name in selection.split("+"):
        last = re.fullmatch(r"last(\d+)", name)
        blocks = [layer for layer in known if layer.startswith("block")]
        if last and 0 < int(last[1]) <= len(blocks):
            layers += blocks[-int(last[1]) :]
        elif name in known:
            layers.append(name)
        else:
            raise UserError(
                f"{backbone.name} has no layer {name!r}; choose from {', '.join(known)}"
                + (", lastN" if blocks else "")
                + ", or several joined by +"
            )
    return layers


def _known_layers(backbone: Backbone) -> list[str]:
    if isinstance(backbone, ResNetBackbone):
        return [OUTPUT, "layer1", "layer2", "layer3", "layer4"]
    model: Any = backbone.model
    if hasattr(model, "blocks") and getattr(model, "num_prefix_tokens", False):
        return [OUTPUT, *(f"block{n}" for n in range(1, len(model.blocks) + 1)), "mean"]
    return [OUTPUT]


def _resnet_features(backbone: ResNetBackbone, x: Tensor) -> dict[str, Tensor]:
    pooled = [stage.mean(dim=(2, 3)) for stage in backbone.stages(x)]
    return {OUTPUT: pooled[-1], **{f"layer{n}": h for n, h in enumerate(pooled, 1)}}


def _vit_features(backbone: Backbone, x: Tensor, layers: list[str]) -> dict[str, Tensor]:
    model: Any = backbone.model
    blocks = {int(match[1]) - 1 for layer in layers if (match := _BLOCK.fullmatch(layer))}
    indices = sorted({*blocks, len(model.blocks) - 1})
    tokens = model.forward_intermediates(
        x, indices=indices, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
    )
    features = {f"block{n + 1}": prefix[:, 0] for n, (_, prefix) in zip(indices, tokens, strict=True)}
    features["mean"] = tokens[-1][0].mean(dim=1)
    if OUTPUT in layers:
        features[OUTPUT] = backbone(x)
    return features
