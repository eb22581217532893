"""The table of checkpoint formats: where a public code base stores its backbones, and which keys it adds.

All names of tensors are those without `module.` and `_orig_mod.`, the prefixes of wrappers, which may occur
in any file. A new format is a new entry of FORMATS and a test that builds such a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from siamtransfer.checkpoints.declaration import FORMAT
from siamtransfer.checkpoints.detectron2_keys import to_torchvision
from siamtransfer.checkpoints.file_format import TORCHVISIONS, USUAL_PATHS, Branch, Format
from siamtransfer.checkpoints.hugging_face_formats import HUGGING_FACE_FORMATS
from siamtransfer.checkpoints.layouts import efficientnet
from siamtransfer.checkpoints.modern_formats import MODERN_FORMATS
from siamtransfer.checkpoints.normalisation import CIFAR10_LOOSE, IMAGENET, NONE, SWAV


def _sequential(children: Mapping[str, str]) -> Callable[[str], str]:
    """A renaming of the children of a torch.nn.Sequential, given by their numbers."""

    def rename(name: str) -> str:
        number, _, rest = name.partition(".")
        if number not in children:
            raise ValueError(f"its tensor {name!r} belongs to no numbered part of a ResNet")
        return f"{children[number]}.{rest}".replace(".shortcut.", ".downsample.")

    return rename


# list(resnet.children()) of torchvision, and the body of lightly's ResNetGenerator.
TORCHVISION_CHILDREN = {"0": "conv1", "1": "bn1", **{str(n + 3): f"layer{n}" for n in (1, 2, 3, 4)}}
LIGHTLY_CHILDREN = {"0": "conv1", "1": "bn1", **{str(n + 1): f"layer{n}" for n in (1, 2, 3, 4)}}


def _kuangliu(name: str) -> str:
    """pytorch-cifar's ResNets, which many code bases copy, call the projection of a block `shortcut`."""
    return name.replace(".shortcut.", ".downsample.")


_RESNET = {"7x7": {**TORCHVISIONS, "stem": "imagenet"}}
"""A code base that takes torchvision's ResNets, and ImageNet's mean and std."""
_VIT = {"normalisation": IMAGENET, "channels": "rgb"}


def _from_detectron2(name: str) -> str:
    """The name of a trunk's tensor in torchvision, from that in a converted trunk or a complete detector."""
    for beginning in ("backbone.bottom_up.", "backbone.", "roi_heads."):
        name = name.removeprefix(beginning)
    return to_torchvision(name)


def _branches(**prefixes: str) -> dict[str, Branch]:
    return {name: Branch(prefix) for name, prefix in prefixes.items()}


# Our own checkpoints from before they declared their keys (see declaration.py); this list grows no more.
OWN = Format(
    FORMAT,
    "a checkpoint of this program",
    _branches(backbone="backbone.", target="target_backbone."),
    key_paths=(("model",),),
    drops={
        "projector.": "projector",
        "target_projector.": "target's projector",
        "head.": "projector",
        "target_head.": "target's projector",
        "predictor.": "predictor",
        "prototypes.": "prototypes",
        "norm.": "batch norm of the loss",
        "distance.": "weights of similarities",
        "terms.": "further terms of the loss",
        "target.": "spread of the outputs",
        "memory.": "averages over augmentations",
        "clusters.": "clusters of images",
        "queue": "queue",
        "center": "centre",
        "correlation.": "correlation matrix",
    },
    needs=("format", "version", "backbone", "normalisation"),
)

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
_LIGHTLY_BRANCHES = _branches(
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
    rename=_sequential(TORCHVISION_CHILDREN),
)

# The first entry whose rules explain everything in a file is its format.
FORMATS = (
    Format(
        "simsiam",
        "SimSiam's official code, main_simsiam.py",
        _branches(encoder="encoder."),
        drops={"encoder.fc.": "projector", "predictor.": "predictor"},
        marks=("encoder.fc.|predictor.",),
        method="simsiam",
        fixes=_RESNET,
    ),
    Format(
        "simsiam-linear",
        "the linear probe of SimSiam's official code (MoCo's and PyTorch's ImageNet example write the same)",
        key_paths=(("state_dict",),),
        drops={"fc.": "classifier"},
        needs=("best_acc1",),
    ),
    Format(
        "moco",
        "MoCo's official code, v1 or v2",
        _branches(query="encoder_q.", key="encoder_k."),
        drops={"encoder_q.fc.": "projector", "encoder_k.fc.": "momentum projector", "queue": "queue"},
        marks=("encoder_q.",),
        method="moco",
        fixes=_RESNET,
    ),
    Format(
        "moco-v3",
        "MoCo v3's official code",
        _branches(base="base_encoder.", momentum="momentum_encoder."),
        drops={
            **{f"base_encoder.{head}.": "projector" for head in ("fc", "head")},
            **{f"momentum_encoder.{head}.": "momentum projector" for head in ("fc", "head")},
            "predictor.": "predictor",
        },
        marks=("base_encoder.",),
        method="moco-v3",
        fixes={**_RESNET, "vit": {**_VIT, "heads": 12}},
    ),
    Format(
        "swav",
        "SwAV's or DeepCluster v2's official code",
        drops={"projection_head.": "projector", "prototypes.": "prototypes"},
        marks=("projection_head.|prototypes.",),
        method="swav",
        fixes={"7x7": {**_RESNET["7x7"], "normalisation": SWAV}},
    ),
    Format(
        "dino",
        "DINO's official code, a full checkpoint",
        {
            "teacher": Branch("backbone.", ("teacher",)),
            "student": Branch("backbone.", ("student",)),
        },
        drops={"head.": "projector", "backbone.fc.": "projector", "backbone.head.": "projector"},
        siblings=("dino_loss",),
        method="dino",
        fixes={**_RESNET, "vit": {**_VIT, "heads": None}},
    ),
    Format(
        "barlow-twins",
        "Barlow Twins' official code",
        _branches(backbone="backbone."),
        key_paths=(("model",), ("state_dict",)),
        drops={"projector.": "projector", "bn.": "batch norm of the loss"},
        marks=("projector.", "bn."),
        method="barlow-twins",
        fixes=_RESNET,
        headed=True,
    ),
    Format(
        "vicreg",
        "VICReg's official code",
        _branches(backbone="backbone."),
        key_paths=(("model",),),
        drops={"projector.": "projector"},
        marks=("backbone.", "projector."),
        method="vicreg",
        headed=True,
    ),
    Format(
        "unigrad",
        "UniGrad's official code",
        _branches(online="encoder.", momentum="momentum_encoder."),
        drops={
            "projector.": "projector",
            "momentum_projector.": "momentum projector",
            "F": "correlation matrix",
        },
        marks=("encoder.0.weight", "projector."),
        siblings=("F",),
        method="unigrad",
        rename=_sequential(TORCHVISION_CHILDREN),
        fixes=_RESNET,
    ),
    Format(
        "directpred",
        "DirectPred's official code (luckmatters)",
        {
            "online": Branch("encoder.", ("online_network_state_dict",)),
            "target": Branch("encoder.", ("target_network_state_dict",)),
        },
        drops={"projetion.": "projector", "projection.": "projector", "encoder.fc.": "projector"},
        siblings=("predictor_state_dict",),
        method="directpred",
        fixes={  # its STL-10 views are not normalised, and only its CIFAR networks have the small stem
            "7x7": {**_RESNET["7x7"], "normalisation": NONE},
            "3x3": {**TORCHVISIONS, "normalisation": CIFAR10_LOOSE, "stem": "small"},
        },
    ),
    Format(
        "patrickhua",
        "PatrickHua/SimSiam",
        _branches(backbone="backbone.", encoder="encoder.0."),
        drops={"projector.": "projector", "predictor.": "predictor", "encoder.1.": "projector"},
        marks=("backbone.", "encoder.0."),
        fixes={**_RESNET, "3x3": {**TORCHVISIONS, "stem": "small"}},
        rename=_kuangliu,
    ),
    Format(
        "mmselfsup",
        "MMSelfSup, MMPretrain or OpenSelfSup (DenseCL)",
        _branches(backbone="backbone.", query="encoder_q.0.", key="encoder_k.0.", target="target_net.0."),
        drops={
            "neck.": "projector",
            "head.": "head",
            "encoder_q.": "projector",
            "target_net.": "momentum projector",
            "encoder_k.": "momentum projector",
            "momentum_encoder.": "momentum encoder",
            "data_preprocessor.": "preprocessing",
            "queue": "queue",
        },
        marks=("backbone.", "neck.|head.|data_preprocessor.|encoder_q.0."),
        headed=True,
    ),
    Format(
        "openmmlab",
        "MMDetection or MMSegmentation",
        _branches(backbone="backbone."),
        drops={
            "neck.": "neck",
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
        rename=_sequential(LIGHTLY_CHILDREN),
    ),
    *(
        Format(
            "solo-learn",
            f"solo-learn, whose backbone is called {word}",
            _branches(backbone=f"{word}.", momentum=f"momentum_{word}."),
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
        _branches(trunk="_feature_blocks."),
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
            "backbone.fpn": "detector",
            "backbone.top_block.": "detector",
            "sem_seg_head.": "detector",
            "proposal_generator.": "detector",
            "roi_heads.box": "detector",
            "roi_heads.mask": "detector",
            "roi_heads.keypoint": "detector",
            "roi_heads.res5.norm.": "detector",
            "head.": "detector",
            "pixel_mean": "normalisation",
            "pixel_std": "normalisation",
        },
        marks=("stem.conv1.weight|backbone.stem.|backbone.bottom_up.stem.",),
        fixes={"7x7": {"stem": "imagenet"}},
        rename=_from_detectron2,
    ),
    *(
        Format(
            "prefixed",
            f"a backbone called {word}, without a method's heads",
            _branches(backbone=f"{word}."),
            drops={f"{word}.fc.": "classifier", f"{word}.head.": "classifier"},
            marks=(f"{word}.",),
        )
        for word in ("backbone", "encoder", "trunk")
    ),
    *HUGGING_FACE_FORMATS,
    *MODERN_FORMATS,
    Format(
        "efficientnet-pytorch",
        "efficientnet-pytorch or efficientnet-lite-pytorch",
        drops={"_fc.": "classifier"},
        marks=("_conv_stem.", "_blocks."),
        convert=efficientnet.to_timm,
        networks="tf_",  # TensorFlow's padding and its epsilon of batch norm
    ),
    Format(
        "timm",
        "a timm ViT's state_dict",
        drops={"head.": "classifier"},
        marks=("patch_embed.", "blocks."),
    ),
    Format("torchvision", "a torchvision model's state_dict", drops={"fc.": "classifier"}),
)
