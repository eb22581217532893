"""The formats of official codes that pretrain by masking, and of networks in their authors' own layout."""

from __future__ import annotations

from siamtransfer.checkpoints.file_format import Branch, Format
from siamtransfer.checkpoints.layouts import official, openmmlab
from siamtransfer.checkpoints.normalisation import IMAGENET

_IMAGENET = {"normalisation": IMAGENET, "channels": "rgb"}
_FIXES = {"vit": _IMAGENET, "other": _IMAGENET}

MASKED_FORMATS: tuple[Format, ...] = (
    Format(
        "simmim",
        "SimMIM's official code, a Swin Transformer",
        {"encoder": Branch("encoder.")},
        key_paths=(("model",),),
        drops={"encoder.mask_token": "mask token", "decoder.": "decoder"},
        marks=("encoder.mask_token", "encoder.layers.", "decoder."),
        method="simmim",
        fixes=_FIXES,
        convert=official.to_timm,
    ),
    Format(
        "fcmae",
        "ConvNeXt V2's official code, pretrained by masking",
        {"encoder": Branch("encoder.")},
        key_paths=(("model",),),
        drops={
            "mask_token": "mask token",
            **dict.fromkeys(("decoder.", "proj.", "pred."), "decoder"),
        },
        marks=("encoder.downsample_layers.", "mask_token|decoder."),
        method="fcmae",
        fixes=_FIXES,
        convert=official.fcmae,
        notes=official.FCMAE_NOTES,
    ),
    Format(
        "fcmae",
        "ConvNeXt V2's official code, pretrained by masking, weights alone",
        marks=("downsample_layers.", "stages.0.0.grn."),
        method="fcmae",
        fixes=_FIXES,
        convert=official.fcmae,
        notes=official.FCMAE_NOTES,
    ),
    Format(
        "vjepa",
        "V-JEPA's official code",
        {"target": Branch("backbone.", ("target_encoder",)), "encoder": Branch("backbone.", ("encoder",))},
        siblings=("predictor", "opt"),
        marks=("backbone.patch_embed.",),
        method="vjepa",
        convert=official.of_images,
    ),
    Format(
        "beit",
        "BEiT's or data2vec's official code, pretrained",
        key_paths=(("model",), ("module",), ()),
        drops={"mask_token": "mask token", "lm_head.": "head", "cls_pt_layers.": "decoder"},
        marks=("mask_token", "lm_head.", "cls_token"),
        method="beit",
        fixes={"other": {"channels": "rgb"}},  # images of BEiT and of BEiT v2 are normalised differently
        convert=official.to_timm,
        pool="token",
    ),
    Format(
        "official",
        "a network in its authors' own layout",
        {"model": Branch("", head="classifier")},
        marks=("|".join(openmmlab.FIRST_WORDS),),
        convert=openmmlab.to_timm,
    ),
)
