"""Networks of timm as Detectron2's backbones: below its feature pyramid, or a ViT that is a pyramid itself.

`register_timm_trunks()` registers the names for MODEL.BACKBONE.NAME; call it before a model is built.
MODEL.TIMM says which network (own_keys.py). MODEL.RESNETS.NORM says how its batch norms train: not at all
(FrozenBN), on the images of one GPU (BN), or on those of all; layer norms stay as they are.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn

from siamtransfer.detection.build_pyramid import build_pyramid_trunk
from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.detection.detectron2.pyramid import feature_pyramid
from siamtransfer.detection.detectron2.timm_settings import (
    FROZEN,
    SYNCHRONISED,
    TIMM_LAYOUTS,
    check_timm_settings,
    configured_architecture,
    pyramid_options,
)


@functools.cache
def register_timm_trunks() -> None:
    """Adds `TIMM_FPN` and `VIT_PYRAMID` to Detectron2's backbones, once."""
    import_detectron2()
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import BACKBONE_REGISTRY
    from detectron2.modeling.backbone import Backbone

    class PyramidBackbone(Backbone):
        """A `PyramidTrunk`, the submodule `pyramid`, with what Detectron2 asks of a backbone."""

        def __init__(self, pyramid: Any):
            super().__init__()
            self.pyramid = pyramid

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps: dict[str, Tensor] = self.pyramid(x)
            return maps

        @property
        def size_divisibility(self) -> int:
            return int(self.pyramid.size_divisibility)

        def output_shape(self) -> dict[str, Any]:
            return {
                name: ShapeSpec(channels=channels, stride=self.pyramid.strides[name])
                for name, channels in self.pyramid.channels.items()
            }

    def build(cfg: Any, input_shape: Any) -> Any:
        check_timm_settings(cfg)
        pyramid = build_pyramid_trunk(configured_architecture(cfg), options=pyramid_options(cfg))
        pyramid.bottom_up.model = _with_norms(pyramid.bottom_up.model, cfg.MODEL.RESNETS.NORM)
        backbone = PyramidBackbone(pyramid)
        return backbone if pyramid.is_pyramid else feature_pyramid(cfg, backbone)

    for name in TIMM_LAYOUTS:

        def registered(cfg: Any, input_shape: Any) -> Any:
            return build(cfg, input_shape)

        registered.__name__ = name
        BACKBONE_REGISTRY.register(registered)


def _with_norms(model: nn.Module, norm: str) -> nn.Module:
    """The network with its batch norms frozen or synchronised; the names of its tensors stay.

    Detectron2's and torch's own conversions would lose the activation that timm has in many of its norms.
    """
    from detectron2.utils import comm
    from timm.layers import convert_sync_batchnorm
    from timm.utils.model import freeze_batch_norm_2d

    if norm == FROZEN:
        frozen: nn.Module = freeze_batch_norm_2d(model)
        return frozen
    if norm in SYNCHRONISED and comm.get_world_size() > 1:
        synchronised: nn.Module = convert_sync_batchnorm(model)
        return synchronised
    return model
