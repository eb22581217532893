"""The formats of Hugging Face's transformers: a family of networks each, alone or inside a task's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siamtransfer.checkpoints.file_format import Branch, Format
from siamtransfer.checkpoints.layouts import hugging_face as layouts

HUGGING_FACE = "huggingface"
_HEADS = {
    **dict.fromkeys(("classifier.", "cls_classifier.", "distillation_classifier."), "classifier"),
    "decoder.": "decoder",
}
_TEXT = {
    **dict.fromkeys(("text_model.", "text_projection."), "text tower"),
    **dict.fromkeys(("visual_projection.", "logit_scale", "logit_bias"), "contrastive head"),
}
_POOLER = {"pooler.": "pooler", "embeddings.mask_token": "mask token"}
_RGB: Mapping[str, Mapping[str, Any]] = {
    "vit": {"channels": "rgb", "positions": "bicubic"},
    "other": {"channels": "rgb"},
    "7x7": {"channels": "rgb", "stem": "imagenet", "output_stride": 32},
}


def _family(
    what: str,
    word: str,
    layout: layouts.Layout,
    mark: str,
    drops: Mapping[str, str],
    heads: Mapping[str, str],
    *,
    networks: str = "",
    pool: str | None = None,
) -> tuple[Format, Format]:
    """The formats of a family: its network alone, and below `word` in a task's model.

    `drops` are rules for tensors of the network itself, `heads` for those beside it;
    `networks` and `pool` are those of Format.
    """
    alone, inside = (
        Format(
            HUGGING_FACE,
            f"transformers' {what}",
            {"model": Branch(prefix)},
            drops={**{f"{prefix}{start}": rule for start, rule in drops.items()}, **heads},
            marks=(f"{prefix}{mark}",),
            fixes=_RGB,
            convert=layout,
            networks=networks,
            pool=pool,
        )
        for prefix in ("", f"{word}.")
    )
    return alone, inside


HUGGING_FACE_FORMATS: tuple[Format, ...] = (
    *_family("ViT or MAE", "vit", layouts.vit, "embeddings.cls_token", _POOLER, _HEADS),
    *_family(
        "I-JEPA",
        "ijepa",
        layouts.vit,
        "embeddings.position_embeddings",
        _POOLER,
        _HEADS,
        networks=r"patch\d+_gap",
    ),
    *_family("DeiT", "deit", layouts.vit, "embeddings.cls_token", _POOLER, _HEADS),
    *_family("DINOv2", "dinov2", layouts.vit, "embeddings.cls_token", _POOLER, _HEADS),
    *_family(
        "DINOv2 with registers", "dinov2_with_registers", layouts.vit, "embeddings.register", _POOLER, _HEADS
    ),
    *_family(
        "DINOv3 ViT",
        "dinov3_vit",
        layouts.dinov3,
        "embeddings.register",
        _POOLER,
        _HEADS,
        networks="dinov3",
        pool="token",
    ),
    *_family(
        "DINOv3 ConvNeXt", "dinov3_convnext", layouts.dinov3_convnext, "stages.0.downsample", {}, _HEADS
    ),
    *_family("ConvNeXt", "convnext", layouts.convnext, "embeddings.patch_embeddings.", {}, _HEADS),
    *_family("ConvNeXt V2", "convnextv2", layouts.convnext, "embeddings.patch_embeddings.", {}, _HEADS),
    *_family(
        "Swin Transformer", "swin", layouts.swin, "embeddings.patch_embeddings.projection", _POOLER, _HEADS
    ),
    *_family(
        "CLIP or SigLIP vision tower",
        "vision_model",
        layouts.clip,
        "embeddings.patch_embedding.",
        {"embeddings.position_ids": "position numbers"},
        _TEXT | _HEADS,
    ),
    *_family("ResNet", "resnet", layouts.resnet, "embedder.embedder.convolution.", {}, _HEADS),
)
