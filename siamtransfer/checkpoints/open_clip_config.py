"""What open_clip's open_clip_config.json beside a file says: the image tower, and how images are prepared.

open_clip writes `model_cfg` (its own configuration of the network) and `preprocess_cfg` (mean, std and, where
they are not the usual ones, interpolation and resize_mode) beside open_clip_model.safetensors or
open_clip_pytorch_model.bin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from siamtransfer.checkpoints.facts import Facts, facts_from
from siamtransfer.checkpoints.normalisation import from_pixels
from siamtransfer.checkpoints.preprocessing import Preprocessing, is_length
from siamtransfer.checkpoints.settings_files import read_json
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import shown

CONFIG = "open_clip_config.json"
SOURCE = f"{CONFIG} beside the file"
_HEAD_WIDTH = 64
_USUAL = {
    "pool_type": "tok",
    "attentional_pool": False,
    "no_ln_pre": False,
    "final_ln_after_pool": False,
    "global_average_pool": False,
}
"""Settings of a ViT that change its features and are read in one way only."""
_CUSTOM_POOLS = ("abs_attn", "rot_attn")  # open_clip's own layers, behind timm's network


class TimmTower(NamedTuple):
    """An image tower of timm: the name of the network, and its pooling where that is not timm's own."""

    name: str
    pool: str | None


def tower_of_timm(path: Path) -> TimmTower | None:
    """The image tower of the file where it is one of timm's."""
    vision = _vision(_config(path))
    name, pool = vision.get("timm_model_name"), vision.get("timm_pool")
    if not isinstance(name, str):
        return None
    return TimmTower(name, pool if isinstance(pool, str) and pool and pool not in _CUSTOM_POOLS else None)


def activation_beside(path: Path) -> str | None:
    """`quick_gelu` or `gelu`, the activation of open_clip's own ViTs; None where there is no configuration.

    Raises:
        UserError: the ViT is built in a way that is not read; the rest of a sentence that begins with the
            file's name.
    """
    config = _config(path)
    if not config:
        return None
    vision = _vision(config)
    for setting, usual in _USUAL.items():
        if vision.get(setting, usual) != usual:
            raise UserError(
                f"has an image tower with {setting} {shown(vision[setting])}, as {SOURCE} says, and such are "
                "not read: convert it with open_clip to transformers or timm"
            )
    return "quick_gelu" if config["model_cfg"].get("quick_gelu") else "gelu"


def facts_of_open_clip(path: Path) -> Facts:
    """Heads, mean and std, and how images are prepared, where the configuration says it.

    Raises:
        UserError: a number is none; the rest of a sentence that begins with the file's name.
    """
    config = _config(path)
    vision, prepared = _vision(config), config.get("preprocess_cfg")
    values: dict[str, Any] = {}
    width, head_width = vision.get("width"), vision.get("head_width", _HEAD_WIDTH)
    if isinstance(width, int) and isinstance(vision.get("layers"), int) and isinstance(head_width, int):
        if head_width < 1:
            raise UserError(f"lies beside {path.parent / CONFIG}, whose head_width is {shown(head_width)}")
        values["heads"] = width // head_width
    if isinstance(prepared, Mapping):
        try:
            values |= _preparation(prepared, vision.get("image_size"))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"lies beside {path.parent / CONFIG}, whose preprocess_cfg is not understood: {error}"
            ) from error
    return facts_from(SOURCE, values)


def _preparation(prepared: Mapping[str, Any], side: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "normalisation": from_pixels(prepared["mean"], prepared["std"], 1.0, bgr=False),
        "channels": "rgb",
    }
    side = prepared.get("size", side)
    side = side[0] if isinstance(side, list) and side and side == side[:1] * len(side) else side
    interpolation, mode = prepared.get("interpolation", "bicubic"), prepared.get("resize_mode", "shortest")
    if is_length(side) and interpolation in ("bicubic", "bilinear") and mode == "shortest":
        values["preprocessing"] = Preprocessing(side, side, interpolation)
    return values


def _config(path: Path) -> dict[str, Any]:
    """The configuration in the folder of the file; empty where there is none.

    Raises:
        UserError: it is damaged or another program's.
    """
    config = read_json(path.parent / CONFIG) or {}
    if config and not isinstance(config.get("model_cfg"), Mapping):
        raise UserError(f"lies beside {path.parent / CONFIG}, which lacks open_clip's model_cfg")
    return config


def _vision(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the image tower."""
    vision = config.get("model_cfg", {}).get("vision_cfg", {})
    return vision if isinstance(vision, Mapping) else {}
