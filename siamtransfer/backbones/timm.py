"""timm's models without a classifier. timm takes seconds to import, so it is imported when it is needed."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
from typing import Any, NamedTuple

import torch
from torch import nn

from siamtransfer.backbones.backbone import check_channels
from siamtransfer.backbones.library_backbone import LibraryBackbone
from siamtransfer.backbones.names import RESNETS, TIMM
from siamtransfer.backbones.outlines import Outline, find_outline
from siamtransfer.backbones.vit_positions import set_positions
from siamtransfer.utils.errors import UserError

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_small_moco_v3": ("vit_small_patch16_224", {"num_heads": 12}),
}
"""Backbones of timm's classes for which timm has no name: the model of timm, and the options that differ."""


class TimmBackbone(LibraryBackbone):
    """A timm model without its classifier: x[N, 3, H, W] to h[N, D].

    `heads` is the number of attention heads of a ViT where it differs from timm's; no tensor shows it.
    `image_size` is the side in pixels for which it has position embeddings, where it differs from timm's;
    images of other sizes get interpolated ones. `pool` is timm's `global_pool`. `activation` and `norm_eps`
    replace those of timm's ViT. `positions`, one of POSITIONS, is how position embeddings are interpolated
    where it is not timm's way. `in_channels` is the 3 of x.

    Raises:
        UserError: `heads` is given for a model that is no plain ViT, or does not divide its width;
            `image_size` is given for a model that has no such choice.
    """

    def __init__(
        self,
        name: str,
        zero_init_residual: bool = False,
        drop_path: float = 0.0,
        heads: int | None = None,
        image_size: int | None = None,
        pool: str | None = None,
        activation: str | None = None,
        norm_eps: float | None = None,
        positions: str | None = None,
        in_channels: int = 3,
    ):
        original, options = VARIANTS.get(name, (name.removeprefix(TIMM), {}))
        if drop_path:
            options = {**options, "drop_path_rate": drop_path}
        if in_channels != 3:
            check_channels(in_channels)
            options = {**options, "in_chans": in_channels}
        if image_size is not None:
            options = {**options, "img_size": image_size}
        if pool is not None:
            options = {**options, "global_pool": pool}
        if activation is not None:
            options = {**options, "act_layer": activation}
        if heads is not None:
            _check_heads(name, heads)
            options = {**options, "num_heads": heads}
        model = _create_model(original, options)
        super().__init__(name, model, getattr(model, "head_hidden_size", None) or model.num_features)
        self.heads, self.image_size, self.pool, self.in_channels = heads, image_size, pool, in_channels
        self.activation, self.norm_eps, self.positions = activation, norm_eps, positions
        if positions is not None:
            set_positions(model, positions)
        if norm_eps is not None:
            for module in model.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = norm_eps
        if zero_init_residual:
            for module in model.modules():
                if hasattr(module, "zero_init_last"):
                    module.zero_init_last()


def _create_model(name: str, options: dict[str, Any]) -> Any:
    """timm's model without a classifier. A ViT takes images of any size, as local views are, by interpolation
    of its position embeddings, and a Swin by padded windows."""
    import timm

    options = {"pretrained": False, "num_classes": 0, **options}
    with contextlib.suppress(TypeError):  # it has no such choice
        return timm.create_model(name, dynamic_img_size=True, **options)
    try:
        return timm.create_model(name, **options)
    except TypeError as error:
        if "img_size" not in options:
            raise
        raise UserError(f"{name} has no size of images that could be chosen: leave image_size out") from error


@functools.cache
def classifier_names(name: str) -> tuple[str, ...]:
    """The names of the tensors that the classifier of timm's network of a name has."""
    import timm

    original, _ = VARIANTS.get(name, (name.removeprefix(TIMM), {}))
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        whole, trunk = timm.create_model(original, num_classes=1), timm.create_model(original, num_classes=0)
    left = trunk.state_dict().keys()
    return tuple(key for key in whole.state_dict() if key not in left)


def known_outline(name: str) -> Outline | None:
    """`find_outline` of a network that `build_backbone` makes, also of one of VARIANTS."""
    if name not in VARIANTS:
        return find_outline(name)
    original, options = VARIANTS[name]
    known = find_outline(TIMM + original)
    return None if known is None else known._replace(heads=options["num_heads"])


def is_timm_model(name: str) -> bool:
    """Whether timm has a model of that name, which has no prefix."""
    if find_outline(TIMM + name) is not None:
        return True
    import timm

    return bool(timm.is_model(name))


@functools.cache
def head_count(name: str) -> int | None:
    """The number of attention heads in each block of the ViT that `build_backbone` makes of `name`; None for
    any other network."""
    if name not in VARIANTS and not name.startswith(TIMM):
        return None
    known = known_outline(name)
    if known is not None:
        return known.heads
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return attention_of(TimmBackbone(name).model)[1]


class PositionCount(NamedTuple):
    """The position embeddings of a ViT: the side of a patch in pixels, and how many embeddings are of no
    patch (of the class token, of registers)."""

    patch: int
    others: int


@functools.cache
def position_count(name: str) -> PositionCount:
    """Of a network of timm that has position embeddings of patches."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model: Any = TimmBackbone(name).model
    embedding = model.patch_embed
    return PositionCount(int(embedding.patch_size[0]), model.pos_embed.shape[1] - embedding.num_patches)


def pretrained_config(name: str) -> dict[str, Any] | None:
    """timm's configuration of the weights of a name with a tag, such as
    `timm:vit_base_patch16_224.augreg_in21k`: mean, std, input_size, crop_pct, interpolation … None for a name
    without a tag, because a model has weights of several trainings."""
    import timm

    bare = name.removeprefix(TIMM)
    config = timm.get_pretrained_cfg(bare) if "." in bare else None
    return dataclasses.asdict(config) if config else None


@functools.cache
def usual_choices(name: str) -> dict[str, Any]:
    """timm's own pooling, and size of images where a network is built for one, by the names of Choices."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model: Any = TimmBackbone(name).model
    head = getattr(model, "head", None) or getattr(model, "fc", None)
    places = (model, head, getattr(head, "global_pool", None), getattr(model, "global_pool", None))
    pools = [getattr(place, key, None) for place in places for key in ("global_pool", "pool_type")]
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    usual: dict[str, Any] = {"pool": next((pool for pool in pools if isinstance(pool, str)), None)}
    return {**usual, "image_size": int(size[0])} if size else usual


@functools.cache
def vit_norm_eps(name: str) -> float | None:
    """The epsilon of the layer norms in timm's VisionTransformer of a name; None for any other network."""
    from timm.models.vision_transformer import VisionTransformer

    if not name.startswith(TIMM):
        return None
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model: Any = TimmBackbone(name).model
    if not isinstance(model, VisionTransformer):
        return None
    norm: Any = next(module for module in model.modules() if isinstance(module, nn.LayerNorm))
    return float(norm.eps)


def attention_of(model: Any) -> tuple[int, int | None]:
    """The width of a plain ViT's tokens and the number of its heads; (0, None) for another model."""
    from timm.models.vision_transformer import Attention, VisionTransformer

    if not isinstance(model, VisionTransformer):
        return 0, None
    counts = {int(module.num_heads) for module in model.modules() if isinstance(module, Attention)}
    return int(model.embed_dim), counts.pop() if len(counts) == 1 else None


@functools.cache
def _vit_width(name: str) -> int:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return attention_of(TimmBackbone(name).model)[0]


def _check_heads(name: str, heads: int) -> None:
    if head_count(name) is None:
        raise UserError(f"{name} is no plain ViT, so it takes no number of attention heads: leave heads out")
    width = _vit_width(name)
    if heads < 1 or width % heads:
        raise UserError(f"{name} has tokens of {width} channels, which {heads} attention heads do not divide")


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
