"""Detectron2's feature pyramid on a trunk whose strides need not begin with 4."""

from __future__ import annotations

from typing import Any


def feature_pyramid(cfg: Any, trunk: Any) -> Any:
    """Detectron2's feature pyramid, as MODEL.FPN says, on a trunk (a Backbone of Detectron2's)."""
    from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

    top = LastLevelMaxPool()
    coarsest = trunk.output_shape()[cfg.MODEL.FPN.IN_FEATURES[-1]].stride
    top.in_feature = f"p{coarsest.bit_length() - 1}"
    return FPN(
        bottom_up=trunk,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
