"""What the config.json of Hugging Face's transformers states of a network and its tensors do not show, where
another value than the usual one would give other features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.settings_files import read_json
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import shown

ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "quick_gelu": "quick_gelu"}
"""timm's names of the activations that its ViTs can have beside their own."""
_GELU = ("gelu", "gelu_python")  # the same function under two names
_OF_VITS = {"hidden_act": (*_GELU, *ACTIVATIONS)}
_OF_CONVNEXTS: Mapping[str, tuple[Any, ...]] = {"hidden_act": _GELU}
_READ: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    **dict.fromkeys(("vit", "deit", "vit_mae", "ijepa", "dinov2", "dinov2_with_registers"), _OF_VITS),
    **dict.fromkeys(("clip", "clip_vision_model", "siglip", "siglip_vision_model"), _OF_VITS),
    **dict.fromkeys(("convnext", "convnextv2", "dinov3_convnext"), _OF_CONVNEXTS),
    "swin": {"hidden_act": _GELU, "layer_norm_eps": (1e-5,)},
    "resnet": {"hidden_act": ("relu",), "downsample_in_first_stage": (False,)},
    "dinov3_vit": {"rope_theta": (100, 100.0), "layer_norm_eps": (1e-5,)},
}
"""The values that are read, by the model_type and the name of the setting."""


def vision_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that is of the network for images."""
    tower = config.get("vision_config", config)
    return tower if isinstance(tower, Mapping) else {}


def refuse_unread_settings(path: Path) -> None:
    """Checks the config.json beside the weights `path`.

    Raises:
        UserError: it states a value that is not read here; the rest of a sentence that begins with the file's
            name.
    """
    config = read_json(path.parent / "config.json") or {}
    settings = vision_settings(config)
    read = dict(_READ.get(str(settings.get("model_type", config.get("model_type"))), {}))
    if settings.get("model_type") == "dinov3_vit":
        read["hidden_act"] = ("silu",) if settings.get("use_gated_mlp") else _GELU
    for name, values in read.items():
        stated = settings.get(name, values[0])
        if stated not in values:
            known = " or ".join(map(str, dict.fromkeys(values)))
            raise UserError(
                f"was built with {name}={shown(stated)}, as config.json beside it says, which is not read "
                f"here: only {known} is"
            )
