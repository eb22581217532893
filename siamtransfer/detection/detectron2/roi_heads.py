"""The C4 head with a norm after res5 that MoCo's transfer protocol has (He et al. 2020, appendix).

`register_heads()` registers the name `Res5ROIHeadsExtraNorm` for MODEL.ROI_HEADS.NAME; call it before a model
is built.
"""

from __future__ import annotations

import functools
from typing import Any

from siamtransfer.detection.detectron2.compat import import_detectron2

EXTRA_NORM = "Res5ROIHeadsExtraNorm"


@functools.cache
def register_heads() -> None:
    """Adds `EXTRA_NORM` to Detectron2's RoI heads, once; a class that has the name already stays."""
    import_detectron2()
    from detectron2.layers import get_norm
    from detectron2.modeling import ROI_HEADS_REGISTRY
    from detectron2.modeling.roi_heads import Res5ROIHeads

    if EXTRA_NORM in ROI_HEADS_REGISTRY:
        return

    class Res5ROIHeadsExtraNorm(Res5ROIHeads):
        """Res5ROIHeads whose res5 ends in a norm, `res5.norm`, that no pretrained file has."""

        @classmethod
        def _build_res5_block(cls, cfg: Any) -> Any:
            res5, channels = super()._build_res5_block(cfg)
            res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
            return res5, channels

    ROI_HEADS_REGISTRY.register(Res5ROIHeadsExtraNorm)
