"""The keys MODEL.VIT of a configuration, which both engines read."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from siamtransfer.detection.vit_pyramid import VitOptions

_ELSEWHERE = ("drop_path", "norm", "channels")  # MODEL.TIMM.DROP_PATH, MODEL.FPN.NORM and OUT_CHANNELS
VIT_FIELDS = {
    f"MODEL.VIT.{field.name.upper()}": field.name
    for field in fields(VitOptions)
    if field.name not in _ELSEWHERE
}
"""Keys to fields of `VitOptions`."""
VIT_KEYS: dict[str, Any] = {key: getattr(VitOptions(), name) for key, name in VIT_FIELDS.items()}
"""Keys to what they are where nothing states them."""


def configured_vit(cfg: Any) -> VitOptions:
    """What Detectron2's CfgNode chooses about a plain ViT.

    Raises:
        UserError: a value is not possible.
    """
    chosen = {name: cfg.MODEL.VIT[key.split(".")[-1]] for key, name in VIT_FIELDS.items()}
    options = VitOptions(
        drop_path=cfg.MODEL.TIMM.DROP_PATH,
        norm=cfg.MODEL.FPN.NORM,
        channels=cfg.MODEL.FPN.OUT_CHANNELS,
        **chosen,
    )
    options.check()
    return options
