"""The formats of frameworks with many methods or tasks: OpenMMLab, lightly, solo-learn, VISSL, Detectron2."""

from __future__ import annotations

from dataclasses import replace

from siamtransfer.checkpoints.detectron2_keys import TIMM_TRUNK, in_model, to_torchvision
from siamtransfer.checkpoints.file_format import USUAL_PATHS, Format, branches
from siamtransfer.checkpoints.layouts import openmmlab
from siamtransfer.checkpoints.layouts.sequential import (
    LIGHTLY_CHILDREN,
    TORCHVISION_CHILDREN,
    renamed_children,
)


def _from_detectron2(name: str) -> str:
    """The name of a trunk's tensor in torchvision, from that in a converted trunk or a complete detector."""
    for beginning in ("backbone.bottom_up.", "backbone.", "roi_heads."):
        name = name.removeprefix(beginning)
    return to_torchvision(name)


def _from_timm_trunk(name: str) -> str:
    """timm's name of a tensor, from that in a converted trunk or a complete detector."""
    for layout in ("timm", "ViT"):
        name = name.removeprefix(in_model("", layout))
    if not name.startswith(TIMM_TRUNK):
        raise ValueError(f"its tensor {name!r} belongs to no trunk of timm's")
    return name.removeprefix(TIMM_TRUNK)


_DETECTOR = {
    "backbone.fpn": "detector",
    "backbone.top_block.": "detector",
    "sem_seg_head.": "detector",
    "proposal_generator.": "detector",
    "roi_heads.box": "detector",
    "roi_heads.mask": "detector",
    "roi_heads.keypoint": "detector",
    "head.": "detector",
    "anchor_generator.": "detector",
    "pixel_mean": "normalisation",
    "pixel_std": "normalisation",
}
"""What stands beside the trunk in a detector of Detectron2."""
_LIGHTLY = {
    "projection_head": "projector",
    "prediction_head": "predictor",
    "teacher_projection_head": "teacher's projector",
    "student_projection_head": "student's projector",
    "projection_head_momentum": "momentum projector",
    "key_projection_head": "momentum projector",
    "query_projection_head": "projector",
    "prototypes": "prototypes",
    "criterion": "loss",
    "online_classifier": "classifier",
    "start_queue": "queue",
    "queue": "queue",
}
_LIGHTLY_BRANCHES = branches(
    model="backbone.",
    query="query_backbone.",
    teacher="teacher_backbone.",
    student="student_backbone.",
    key="key_backbone.",
    momentum="backbone_momentum.",
)
_LIGHTLY_TUTORIAL = Format(
    "lightly-tutorial",
    "lightly's tutorials, whose backbone is a Sequential",
    _LIGHTLY_BRANCHES,
    drops=_LIGHTLY,
    rename=renamed_children(TORCHVISION_CHILDREN),
)

_MAP_NORMS = {f"backbone.norm{stage}.": "norms of maps" for stage in (0, 1, 2)}  # of detectors alone

FRAMEWORK_FORMATS: tuple[Format, ...] = (
    Format(
        "mmselfsup",
        "MMSelfSup, MMPretrain or OpenSelfSup (DenseCL)",
        branches(backbone="backbone.", query="encoder_q.0.", key="encoder_k.0.", target="target_net.0."),
        drops={
            "neck.": "projector",
            "head.": "head",
            **_MAP_NORMS,
            "encoder_q.": "projector",
            "target_net.": "momentum projector",
            "encoder_k.": "momentum projector",
            "momentum_encoder.": "momentum encoder",
            "data_preprocessor.": "preprocessing",
            "queue": "queue",
        },
        marks=("backbone.", "neck.|head.|data_preprocessor.|encoder_q.0."),
        headed=True,
        convert=openmmlab.to_timm,
    ),
    Format(
        "openmmlab",
        "MMDetection or MMSegmentation",
        branches(backbone="backbone."),
        drops={
            "neck.": "neck",
            **_MAP_NORMS,
            "data_preprocessor.": "preprocessing",
            "backbone.fc.": "classifier",
            **{
                f"{head}.": "detector"
                for head in (
                    "bbox_head",
                    "rpn_head",
                    "roi_head",
                    "mask_head",
                    "mask_iou_head",
                    "panoptic_head",
                )
            },
            **{f"{head}.": "segmenter" for head in ("decode_head", "auxiliary_head")},
        },
        marks=("backbone.", "bbox_head.|rpn_head.|roi_head.|mask_head.|decode_head."),
        convert=openmmlab.to_timm,
    ),
    Format(
        "lightly",
        "lightly's benchmarks",
        _LIGHTLY_BRANCHES,
        drops=_LIGHTLY,
        marks=("projection_head|prediction_head|student_|teacher_|key_|query_|online_classifier|criterion",),
    ),
    _LIGHTLY_TUTORIAL,
    replace(
        _LIGHTLY_TUTORIAL,
        what="lightly's tutorials, whose backbone is its ResNetGenerator",
        fixes={"3x3": {"channels": "rgb", "stride_in_1x1": False, "output_stride": 32, "stem": "small"}},
        rename=renamed_children(LIGHTLY_CHILDREN),
    ),
    *(
        Format(
            "solo-learn",
            f"solo-learn, whose backbone is called {word}",
            branches(backbone=f"{word}.", momentum=f"momentum_{word}."),
            drops={
                f"{word}.fc.": "classifier",
                "projector": "projector",
                "predictor": "predictor",
                "classifier.": "classifier",
                "momentum_projector": "momentum projector",
                "momentum_predictor": "momentum predictor",
                "momentum_classifier.": "momentum classifier",
                "prototypes": "prototypes",
                "head.": "projector",
                "momentum_head.": "momentum projector",
                "queue": "queue",
                "dino_loss_func.": "loss",
                "centroids": "prototypes",
                "local_memory": "queue",
            },
            marks=(f"{word}.", "classifier.|projector|prototypes|head."),
            headed=True,
        )
        for word in ("backbone", "encoder")
    ),
    Format(
        "vissl",
        "VISSL",
        branches(trunk="_feature_blocks."),
        key_paths=(
            ("classy_state_dict", "base_model", "model", "trunk"),
            ("model", "trunk"),
            ("trunk",),
            *USUAL_PATHS,
        ),
        marks=("_feature_blocks.",),
        drops={"heads.": "heads", "prototypes": "prototypes"},
        siblings=("heads", "train"),
    ),
    Format(
        "detectron2",
        "Detectron2, a converted trunk or a whole detector",
        drops={
            "stem.fc.": "projector",  # converters of torchvision's and MoCo's files keep them there
            "roi_heads.res5.norm.": "detector",
            **_DETECTOR,
        },
        marks=("stem.conv1.weight|backbone.stem.|backbone.bottom_up.stem.",),
        fixes={"7x7": {"stem": "imagenet"}},
        siblings=("trainer",),  # of a checkpoint of a training
        rename=_from_detectron2,
    ),
    Format(
        "detectron2-timm",
        "Detectron2, a network of timm that was converted, or a whole detector on one",
        drops={
            **{
                f"{in_model('', layout)}{part}.": "detector"
                for layout in ("timm", "ViT")
                for part in ("norms", "relative", "levels")
            },
            **_DETECTOR,
        },
        marks=("|".join((TIMM_TRUNK, in_model("", "timm"), in_model("", "ViT"))),),
        siblings=("trainer",),  # of a checkpoint of a training
        rename=_from_timm_trunk,
    ),
)
