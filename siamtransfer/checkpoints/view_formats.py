"""The formats of official codes that compare views or regions of images and have several heads."""

from __future__ import annotations

from siamtransfer.checkpoints.file_format import TORCHVISIONS, Branch, Format
from siamtransfer.checkpoints.layouts import official
from siamtransfer.checkpoints.normalisation import IMAGENET

_IMAGENET = {"normalisation": IMAGENET, "channels": "rgb"}
_FIXES = {
    "7x7": {**TORCHVISIONS, "stem": "imagenet"},
    "vit": {**_IMAGENET, "heads": None, "positions": "bicubic-offset"},
    "other": _IMAGENET,
}
_TEACHER_AND_STUDENT = {
    "teacher": Branch("backbone.", ("teacher",), head="projector"),
    "student": Branch("backbone.", ("student",), head="projector"),
}

VIEW_FORMATS: tuple[Format, ...] = (
    Format(
        "pixpro",
        "PixPro's official code",
        {"encoder": Branch("encoder."), "momentum": Branch("encoder_k.")},
        key_paths=(("model",),),
        drops={
            "projector.": "projector",
            "projector_k.": "momentum projector",
            "projector_instance.": "projector",
            "projector_instance_k.": "momentum projector",
            "value_transform.": "transformation of pixels",
            "predictor.": "predictor",
        },
        marks=("encoder_k.", "projector_k."),
        method="pixpro",
        fixes=_FIXES,
    ),
    Format(
        "ressl",
        "ReSSL's official code",
        {
            "query": Branch("encoder_q.net.", head="classifier"),
            "key": Branch("encoder_k.net.", head="classifier"),
        },
        key_paths=(("model",),),
        drops={"encoder_q.head.": "projector", "encoder_k.head.": "momentum projector", "queue": "queue"},
        marks=("encoder_q.net.", "encoder_q.head."),
        method="ressl",
        fixes=_FIXES,
    ),
    Format(
        "mugs",
        "Mugs' official code, a full checkpoint",
        _TEACHER_AND_STUDENT,
        drops={
            "backbone.relation_blocks.": "blocks of the local group",
            **dict.fromkeys(("instance_head.", "local_group_head.", "group_head."), "projector"),
        },
        siblings=("student_mem", "teacher_mem", "instance-sup.", "local-group-sup.", "group-sup."),
        marks=("backbone.", "instance_head.|local_group_head.|group_head."),
        method="mugs",
        fixes=_FIXES,
    ),
    Format(
        "mugs",
        "Mugs' official code, weights alone",
        key_paths=(("state_dict",), ()),
        drops={"relation_blocks.": "blocks of the local group"},
        marks=("relation_blocks.", "blocks."),
        method="mugs",
        fixes=_FIXES,
    ),
    Format(
        "esvit",
        "EsViT's official code, a full checkpoint",
        {
            "teacher": Branch("", ("teacher",), head="projector"),
            "student": Branch("", ("student",), head="projector"),
        },
        drops={"head_dense.": "projector"},
        siblings=("dino_loss",),
        marks=("layers.|blocks.", "head.mlp."),
        method="esvit",
        fixes=_FIXES,
        convert=official.to_timm,
        norm_eps=1e-6,
    ),
    Format(
        "vicregl",
        "VICRegL's official code, a full checkpoint",
        {"backbone": Branch("backbone.")},
        key_paths=(("model",),),
        drops={"maps_projector.": "projector", "projector.": "projector", "classifier.": "classifier"},
        marks=("backbone.", "maps_projector."),
        method="vicregl",
        fixes=_FIXES,
        convert=official.vicregl,
        notes=official.VICREGL_NOTES,
    ),
    Format(
        "vicregl",
        "VICRegL's official code, a ConvNeXt's weights alone",
        marks=("downsample_layers.", "norm."),
        method="vicregl",
        fixes=_FIXES,
        convert=official.vicregl,
        notes=official.VICREGL_NOTES,
    ),
)
