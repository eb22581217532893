"""Which layers of a backbone the features come from: by name, several side by side.

A selection is parts joined by `+`. Parts of a ResNet: `layer1` to `layer4`, each the mean over its map. Parts
of a ViT: `blockN` (the class token after block N, counted from 1, through the final norm), `lastN` (those of
the last N blocks) and `mean` (the mean patch token of the last block). Parts of any backbone: `output`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.backbones.architecture import Backbone, ResNetBackbone
from siamtransfer.utils.errors import UserError

OUTPUT = "output"
_PART = re.compile(r"(layer|block)(\d+)")


class FeatureLayers(nn.Module):
    """x[N, 3, H, W] -> the parts of all `selections`, each once, side by side: h[N, D].

    Attributes:
        widths: D_p of each part, in the order in which they stand in h; known after the first forward.

    Raises:
        UserError: the backbone has no such part; says which there are.
    """

    def __init__(self, backbone: Backbone, selections: Sequence[str] = (OUTPUT,)):
        super().__init__()
        self.backbone = backbone
        self.selections = {name: _parts(backbone, name) for name in selections}
        self.parts = list(dict.fromkeys(part for parts in self.selections.values() for part in parts))
        self.widths: dict[str, int] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.parts == [OUTPUT]:
            found = {OUTPUT: self.backbone(x)}
        elif isinstance(self.backbone, ResNetBackbone):
            found = _resnet_parts(self.backbone, x)
        else:
            found = _vit_parts(self.backbone, x, self.parts)
        self.widths = {part: found[part].shape[1] for part in self.parts}
        return torch.cat([found[part] for part in self.parts], dim=1)

    def select(self, h: Tensor, name: str) -> Tensor:
        """The columns of h[N, D] that one of the selections named when this was made."""
        pieces = dict(zip(self.parts, h.split(list(self.widths.values()), dim=1), strict=True))
        chosen = [pieces[part] for part in self.selections[name]]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=1)

    def measure(self, size: int) -> None:
        """Learns the widths from one black image of `size` pixels, where no forward has shown them."""
        device = next(self.backbone.parameters()).device
        training = self.backbone.training
        self.backbone.eval()
        with torch.no_grad():
            self(torch.zeros(1, 3, size, size, device=device))
        self.backbone.train(training)


def _parts(backbone: Backbone, selection: str) -> list[str]:
    known = _known(backbone)
    parts: list[str] = []
    for part in selection.split("+"):
        last = re.fullmatch(r"last(\d+)", part)
        blocks = [name for name in known if name.startswith("block")]
        if last and 0 < int(last[1]) <= len(blocks):
            parts += blocks[-int(last[1]) :]
        elif part in known:
            parts.append(part)
        else:
            raise UserError(
                f"{backbone.name} has no layer {part!r}; choose from {', '.join(known)}"
                + (", lastN" if blocks else "")
                + ", or several joined by +"
            )
    return parts


def _known(backbone: Backbone) -> list[str]:
    if isinstance(backbone, ResNetBackbone):
        return [OUTPUT, "layer1", "layer2", "layer3", "layer4"]
    model: Any = backbone.model
    if hasattr(model, "blocks") and getattr(model, "num_prefix_tokens", False):
        return [OUTPUT, *(f"block{n}" for n in range(1, len(model.blocks) + 1)), "mean"]
    return [OUTPUT]


def _resnet_parts(backbone: ResNetBackbone, x: Tensor) -> dict[str, Tensor]:
    pooled = [stage.mean(dim=(2, 3)) for stage in backbone.stages(x)]
    return {OUTPUT: pooled[-1], **{f"layer{n}": h for n, h in enumerate(pooled, 1)}}


def _vit_parts(backbone: Backbone, x: Tensor, parts: list[str]) -> dict[str, Tensor]:
    model: Any = backbone.model
    blocks = sorted({int(match[2]) - 1 for part in parts if (match := _PART.fullmatch(part))})
    last = len(model.blocks) - 1
    wanted = sorted({*blocks, last})
    tokens = model.forward_intermediates(
        x, indices=wanted, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
    )
    found = {f"block{n + 1}": prefix[:, 0] for n, (_, prefix) in zip(wanted, tokens, strict=True)}
    found["mean"] = tokens[-1][0].mean(dim=1)
    if OUTPUT in parts:
        found[OUTPUT] = backbone(x)
    return found
