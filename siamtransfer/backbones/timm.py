"""timm's models without a classifier. timm takes seconds to import, so it is imported when it is needed."""

from __future__ import annotations

import difflib
from typing import Any

from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.names import RESNETS, TIMM
from siamtransfer.utils.errors import UserError

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_small_moco_v3": ("vit_small_patch16_224", {"num_heads": 12}),
}
"""Backbones of timm's classes for which timm has no name: the model of timm, and the options that differ."""


class TimmBackbone(Backbone):
    """A timm model without its classifier: x[N, 3, H, W] to h[N, D].

    In `state_dict` and `load_state_dict` the tensors have timm's names, so that a checkpoint of this class
    and one of timm's model have the same keys. The model is the submodule `model`, and torch would put the
    prefix `model.` before every name: `state_dict` leaves it out, and a hook puts it back before loading.
    """

    def __init__(self, name: str, zero_init_residual: bool, drop_path: float = 0.0):
        super().__init__()
        original, options = VARIANTS.get(name, (name.removeprefix(TIMM), {}))
        if drop_path:
            options = {**options, "drop_path_rate": drop_path}
        model = _create_model(original, options)
        self.name, self.width, self.stem = name, None, None
        self.dim = getattr(model, "head_hidden_size", None) or model.num_features
        if zero_init_residual:
            for module in model.modules():
                if hasattr(module, "zero_init_last"):
                    module.zero_init_last()
        self.model = model
        self.register_load_state_dict_pre_hook(_add_model_prefix)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return self.model.state_dict(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _create_model(name: str, options: dict[str, Any]) -> Any:
    """timm's model without a classifier. A ViT takes images of any size, as local views are, by interpolation
    of its position embeddings."""
    import timm

    options = {"pretrained": False, "num_classes": 0, **options}
    try:
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:  # no ViT
        return timm.create_model(name, **options)


def _add_model_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Puts `model.` before the names of the tensors that `load_state_dict` is about to load."""
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}model.{name.removeprefix(prefix)}"] = state.pop(name)


def timm_name(name: str) -> str:
    """`timm:NAME` for a model that timm knows under `name`, with or without the prefix.

    Raises:
        UserError: timm has no such model; names the nearest known ones.
    """
    import timm

    bare = name.removeprefix(TIMM)
    if not timm.is_model(bare):
        known = dict.fromkeys([*RESNETS, *VARIANTS, *timm.list_models()])
        nearest = difflib.get_close_matches(bare.lower(), known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known are {', '.join(RESNETS)}"
        raise UserError(f"backbone {name!r} is neither a ResNet of torchvision nor a timm model; {hint}")
    return TIMM + bare
