"""The proof that Detectron2 runs a network of timm with converted weights as timm runs the original.

Detectron2 builds the network from the written configuration, and its checkpointer loads the written weights.
Every tensor has to arrive to the bit. The maps below the feature pyramid have to agree in float32, in the
memory format channels_last, and far more closely in float64, at a size that is not the network's own and at
its own size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.checkpoints.file_format import Normalisation
from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.detection.detectron2.convertible import layouts
from siamtransfer.detection.detectron2.parity import (
    IMAGE,
    TOLERANCE,
    Parity,
    build_trunk,
    configuration,
    count_loaded,
    detectron2_input,
    load_weights,
    original_input,
    relative_error,
)
from siamtransfer.detection.detectron2.shapes import detectron2_name
from siamtransfer.detection.pyramid_trunk import LEVELS
from siamtransfer.detection.stage_trunk import intermediates, stage_facts

_OTHER_SIZE = (160, 64)
_NORM_EPS = 1e-6  # of timm's layer norms of maps


def measure_timm_parity(
    weights: Path, weights_config: Path, backbone: Backbone, normalisation: Normalisation
) -> Parity:
    """Compares the maps of Detectron2's network and of timm's.

    `weights` and `weights_config` are the written files, whatever their names; `backbone` holds the original
    weights in float32, in eval mode.

    Raises:
        UserError: Detectron2 is absent, or a tensor of its trunk did not get its value from the file.
    """
    detectron2, architecture = import_detectron2(), Architecture.of(backbone)
    (layout,) = layouts(architecture)
    cfg = configuration(layout, weights_config)
    model = build_trunk(cfg, layout)
    load_weights(model, weights)
    sources = {detectron2_name(name, architecture): value for name, value in backbone.state_dict().items()}
    tensors = {layout: count_loaded(model, layout, sources)}
    errors: dict[tuple[torch.dtype, str, str], float] = {}
    for name, size in ((layout, IMAGE[1:]), (f"{layout}-own-size", _own_size(backbone))):
        image = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0))
        for dtype in TOLERANCE:
            seen = image.to(dtype)
            expected = _original_maps(backbone.to(dtype), architecture, original_input(normalisation, seen))
            given = detectron2_input(cfg, seen)
            for label, found in _detectron2_maps(model.to(dtype), name, given).items():
                for stage, a, b in zip(LEVELS, found, expected, strict=True):
                    errors[dtype, label, stage] = relative_error(a, b)
    backbone.float()
    return Parity(errors, tensors, detectron2, library="timm")


def _own_size(backbone: Any) -> tuple[int, int]:
    """Height and width of the images that a network of windows is made for; others where it has no size."""
    height, width = getattr(getattr(backbone.model, "patch_embed", None), "img_size", None) or _OTHER_SIZE
    return int(height), int(width)


def _detectron2_maps(model: nn.Module, name: str, x: Tensor) -> dict[str, list[Tensor]]:
    """Detectron2's res2 to res5 of x[1, 3, H, W], by `name`, and the same of x in channels_last."""
    backbone: Any = model.backbone
    with torch.no_grad():
        return {
            label: list(backbone.bottom_up(given).values())
            for label, given in (
                (name, x),
                (f"{name}-channels-last", x.contiguous(memory_format=torch.channels_last)),
            )
        }


def _original_maps(backbone: Any, architecture: Architecture, x: Tensor) -> list[Tensor]:
    """timm's maps of x[1, 3, H, W], under a new layer norm where the trunk of a detector has one."""
    facts = stage_facts(architecture)
    with torch.no_grad():
        maps = intermediates(backbone.model, x, facts.indices)
        if not facts.map_norm:
            return maps
        return [
            functional.layer_norm(features.permute(0, 2, 3, 1), features.shape[1:2], eps=_NORM_EPS).permute(
                0, 3, 1, 2
            )
            for features in maps
        ]
