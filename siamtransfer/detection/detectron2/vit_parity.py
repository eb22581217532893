"""The proof that Detectron2 runs a plain ViT with converted weights as timm runs the original.

Detectron2 builds the pyramid from the written configuration, and its checkpointer loads the written weights.
Every tensor has to arrive to the bit. The map below the levels has to be that of timm's
`forward_intermediates`, in float32, in the memory format channels_last, and far more closely in float64. The
images are small enough for one window, where attention in windows is attention over the whole image, and
relative positions begin at zero. Where the patches are resampled, timm resamples those of the original.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.checkpoints.file_format import Normalisation
from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.detection.detectron2.parity import (
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
from siamtransfer.detection.vit_trunk import own_patch

LAYOUT = "ViT"
MAP = "map"
PATCHES = ((6, 8), (14, 14))
"""Height and width of the images in patches; the second is the own size of ViTs for 224 pixels."""


def measure_vit_parity(
    weights: Path, weights_config: Path, backbone: Backbone, normalisation: Normalisation
) -> Parity:
    """Compares the maps of Detectron2's network and of timm's.

    `weights` and `weights_config` are the written files, whatever their names; `backbone` holds the original
    weights in float32, in eval mode, and is not used afterwards.

    Raises:
        UserError: Detectron2 is absent, or a tensor of its trunk did not get its value from the file.
    """
    detectron2, architecture = import_detectron2(), Architecture.of(backbone)
    cfg = configuration(LAYOUT, weights_config)
    model = build_trunk(cfg, LAYOUT)
    load_weights(model, weights)
    sources = {detectron2_name(name, architecture): value for name, value in backbone.state_dict().items()}
    tensors = {LAYOUT: count_loaded(model, LAYOUT, sources)}
    pyramid = _pyramid(model)
    original: Any = _with_patches(backbone, pyramid.bottom_up.patch)
    errors: dict[tuple[torch.dtype, str, str], float] = {}
    for height, width in PATCHES:
        size = (height * pyramid.bottom_up.patch, width * pyramid.bottom_up.patch)
        image = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0))
        for dtype in TOLERANCE:
            seen = image.to(dtype)
            with torch.no_grad():
                expected = original.model.to(dtype).forward_intermediates(
                    original_input(normalisation, seen),
                    indices=1,
                    norm=cfg.MODEL.VIT.FINAL_NORM,
                    intermediates_only=True,
                )[0]
            for label, found in _maps(model.to(dtype), detectron2_input(cfg, seen)).items():
                key = dtype, label, f"{MAP} of {height}x{width} patches"
                errors[key] = relative_error(found, expected)
    return Parity(errors, tensors, detectron2, library="timm")


def _pyramid(model: nn.Module) -> Any:
    """The VitPyramid of Detectron2's model."""
    backbone: Any = model.backbone
    return backbone.pyramid


def _maps(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The map of x[1, 3, H, W], and that of x in channels_last."""
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return {LAYOUT: _pyramid(model).map(x), f"{LAYOUT}-channels-last": _pyramid(model).map(last)}


def _with_patches(backbone: Any, patch: int) -> Any:
    """The backbone, with its patch embedding resampled by timm where it has patches of another size."""
    if own_patch(backbone.model) != patch:
        embedding = backbone.model.patch_embed
        grid = embedding.grid_size
        embedding.set_input_size(patch_size=patch)
        embedding.grid_size = grid  # the position embeddings keep theirs
    return backbone
