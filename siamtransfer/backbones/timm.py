"""timm's models without a classifier. timm takes seconds to import, so it is imported when it is needed."""

from __future__ import annotations

import difflib
import functools
from typing import Any

import torch
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

    `heads` is the number of attention heads of a ViT where it differs from timm's; no tensor shows it.

    Raises:
        UserError: `heads` is given for a model that is no plain ViT, or does not divide its width.
    """

    def __init__(
        self, name: str, zero_init_residual: bool = False, drop_path: float = 0.0, heads: int | None = None
    ):
        super().__init__()
        original, options = VARIANTS.get(name, (name.removeprefix(TIMM), {}))
        if drop_path:
            options = {**options, "drop_path_rate": drop_path}
        if heads is not None:
            _check_heads(name, heads)
            options = {**options, "num_heads": heads}
        model = _create_model(original, options)
        self.name, self.width, self.stem, self.heads = name, None, None, heads
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


@functools.cache
def head_count(name: str) -> int | None:
    """The number of attention heads in each block of the ViT that `build_backbone` makes of `name`; None for
    any other network."""
    if name not in VARIANTS and not name.startswith(TIMM):
        return None
    with torch.random.fork_rng(devices=[]):
        return _attention(TimmBackbone(name).model)[1]


def pretrained_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of RGB in [0, 1] with which timm's weights of a name with a tag, such as
    `timm:vit_base_patch16_224.augreg_in21k`, were trained; None for a name without a tag, because a model has
    weights of several trainings."""
    import timm

    bare = name.removeprefix(TIMM)
    config = timm.get_pretrained_cfg(bare) if "." in bare else None
    return (tuple(config.mean), tuple(config.std)) if config else None


def _attention(model: Any) -> tuple[int, int | None]:
    """The width of a plain ViT's tokens and the number of its heads; (0, None) for another model."""
    from timm.models.vision_transformer import Attention, VisionTransformer

    if not isinstance(model, VisionTransformer):
        return 0, None
    counts = {int(module.num_heads) for module in model.modules() if isinstance(module, Attention)}
    return int(model.embed_dim), counts.pop() if len(counts) == 1 else None


@functools.cache
def _vit_width(name: str) -> int:
    with torch.random.fork_rng(devices=[]):
        return _attention(TimmBackbone(name).model)[0]


def _check_heads(name: str, heads: int) -> None:
    if head_count(name) is None:
        raise UserError(f"{name} is no plain ViT, so it takes no number of attention heads: leave heads out")
    width = _vit_width(name)
    if heads < 1 or width % heads:
        raise UserError(f"{name} has tokens of {width} channels, which {heads} attention heads do not divide")


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
