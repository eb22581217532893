"""The formats of CLIP and of what followed it: an image tower beside a text tower."""

from __future__ import annotations

from siamtransfer.checkpoints.file_format import Branch, Format
from siamtransfer.checkpoints.layouts import open_clip

TEXT_TOWER = {
    **dict.fromkeys(("transformer.", "token_embedding.", "positional_embedding", "ln_final."), "text tower"),
    **dict.fromkeys(("text_projection", "logit_scale", "logit_bias"), "contrastive head"),
    "visual.proj": "contrastive head",
}
"""The rules for what stands beside `visual.`."""
_CUSTOM_TEXT = {"text.": "text tower", "text_decoder.": "text decoder"}
_RGB = {"other": {"channels": "rgb"}, "vit": {"channels": "rgb"}}

VISION_LANGUAGE_FORMATS: tuple[Format, ...] = (
    *(
        Format(
            "open-clip",
            f"a ResNet of OpenAI's CLIP or open_clip, {what}",
            {"visual": Branch(prefix)},
            drops={f"{prefix}attnpool.c_proj.": "contrastive head", **(TEXT_TOWER if prefix else {})},
            marks=(f"{prefix}attnpool.", f"{prefix}layer1."),
            fixes=_RGB,
            convert=open_clip.resnet,
        )
        for prefix, what in (("visual.", "both towers"), ("", "the vision tower"))
    ),
    *(
        Format(
            "open-clip",
            f"open_clip with an image tower of timm, {what}",
            {"visual": Branch(f"{prefix}trunk.", head="contrastive head")},
            drops={
                **{f"{prefix}head.{part}.": "contrastive head" for part in ("proj", "mlp", "pool")},
                **(TEXT_TOWER | _CUSTOM_TEXT if prefix else {}),
            },
            marks=(f"{prefix}trunk.", mark),
            fixes=_RGB,
        )
        for prefix, what, mark in (
            ("visual.", "both towers", "visual.trunk."),
            ("", "the vision tower", "head.proj.|head.mlp.|head.pool."),
        )
    ),
)
