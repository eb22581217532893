"""The formats of self-supervised ViTs after DINO, and of CLIP."""

from __future__ import annotations

from siamtransfer.checkpoints.file_format import Branch, Format
from siamtransfer.checkpoints.layouts import meta, official, open_clip
from siamtransfer.checkpoints.vision_language_formats import TEXT_TOWER

_RGB = {kind: {"channels": "rgb"} for kind in ("vit", "other")}
_DINO = {**_RGB, "vit": {"channels": "rgb", "positions": "bicubic-offset"}}
_MAE = {**_RGB, "vit": {"channels": "rgb", "positions": "bicubic"}}
_CLIP = {**_RGB, "vit": {"channels": "rgb", "positions": "antialiased"}}
_DECODER = dict.fromkeys(
    ("decoder_embed.", "decoder_blocks.", "decoder_norm.", "decoder_pred.", "decoder_pos_embed"), "decoder"
)

MODERN_FORMATS: tuple[Format, ...] = (
    Format(
        "dinov2",
        "DINOv2's official code, weights alone",
        drops={"mask_token": "mask token"},
        marks=("mask_token", "pos_embed", "blocks.0.ls1.|register_tokens"),
        method="dinov2",
        fixes=_DINO,
        convert=meta.dinov2,
    ),
    Format(
        "dinov2",
        "DINOv2's official code, the teacher of a training",
        {"teacher": Branch("backbone.", ("teacher",))},
        drops={"backbone.mask_token": "mask token", "dino_head.": "projector", "ibot_head.": "projector"},
        marks=("backbone.mask_token", "dino_head."),
        method="dinov2",
        fixes=_DINO,
        convert=meta.dinov2,
    ),
    Format(
        "dinov3",
        "DINOv3's official code, weights alone",
        drops={"mask_token": "mask token", "rope_embed.": "frequencies of positions"},
        marks=("storage_tokens", "rope_embed."),
        method="dinov3",
        fixes=_RGB,
        convert=meta.dinov3,
        networks="dinov3",
        pool="token",
    ),
    Format(
        "ibot",
        "iBOT's official code, a full checkpoint",
        {"teacher": Branch("backbone.", ("teacher",)), "student": Branch("backbone.", ("student",))},
        drops={"head.": "projector", "backbone.masked_embed": "mask token"},
        siblings=("ibot_loss",),
        marks=("backbone.masked_embed",),
        method="ibot",
        convert=official.to_timm,
        fixes={"vit": {**_DINO["vit"], "heads": None}},
    ),
    Format(
        "msn",
        "MSN's official code",
        {"target": Branch("", ("target_encoder",)), "encoder": Branch("", ("encoder",))},
        drops={"fc.": "projector"},
        siblings=("prototypes", "opt"),
        marks=("fc.",),
        method="msn",
        fixes={"vit": {**_MAE["vit"], "heads": None}},
    ),
    Format(
        "ijepa",
        "I-JEPA's official code",
        {"target": Branch("", ("target_encoder",)), "encoder": Branch("", ("encoder",))},
        siblings=("predictor", "opt"),
        needs=("predictor",),
        method="ijepa",
        fixes=_RGB,
        networks=r"patch\d+_gap",
    ),
    Format(
        "mae",
        "MAE's official code, with its decoder",
        drops={"mask_token": "mask token", **_DECODER},
        marks=("decoder_embed.",),
        method="mae",
        fixes=_MAE,
    ),
    *(
        Format(
            "open-clip",
            f"OpenAI's CLIP or open_clip, {what}",
            {"visual": Branch(prefix)},
            drops=TEXT_TOWER if prefix else {"proj": "contrastive head"},
            marks=(f"{prefix}transformer.resblocks.", f"{prefix}class_embedding"),
            fixes=_CLIP,
            convert=open_clip.vision_tower,
        )
        for prefix, what in (("visual.", "both towers"), ("", "the vision tower"))
    ),
)
