"""The formats of the official codes of methods that compare two views, from MoCo on."""

from __future__ import annotations

from siamtransfer.checkpoints.file_format import TORCHVISIONS, Branch, Format, branches
from siamtransfer.checkpoints.layouts import official
from siamtransfer.checkpoints.layouts.sequential import TORCHVISION_CHILDREN, renamed_children
from siamtransfer.checkpoints.normalisation import CIFAR10_LOOSE, IMAGENET, NONE, SWAV

_VIT = {"normalisation": IMAGENET, "channels": "rgb"}
_RESNET = {"7x7": {**TORCHVISIONS, "stem": "imagenet"}, "other": _VIT}
"""A code base that takes torchvision's ResNets or a user's network, and ImageNet's mean and std."""


def _kuangliu(name: str) -> str:
    """pytorch-cifar's ResNets, which many code bases copy, call the projection of a block `shortcut`."""
    return name.replace(".shortcut.", ".downsample.")


METHOD_FORMATS: tuple[Format, ...] = (
    Format(
        "simsiam",
        "SimSiam's official code, main_simsiam.py",
        {"encoder": Branch("encoder.", head="projector")},
        drops={"predictor.": "predictor"},
        marks=("encoder.", "encoder.fc.|predictor."),
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
        {
            "query": Branch("encoder_q.", head="projector"),
            "key": Branch("encoder_k.", head="momentum projector"),
        },
        drops={"queue": "queue"},
        marks=("encoder_q.",),
        method="moco",
        fixes=_RESNET,
    ),
    Format(
        "moco-v3",
        "MoCo v3's official code",
        {
            "base": Branch("base_encoder.", head="projector"),
            "momentum": Branch("momentum_encoder.", head="momentum projector"),
        },
        drops={"predictor.": "predictor"},
        marks=("base_encoder.",),
        method="moco-v3",
        convert=official.to_timm,
        # Its ViTs take images of one size, so that timm's positions at other sizes are as good as any.
        fixes={**_RESNET, "vit": {**_VIT, "heads": 12, "positions": "antialiased"}},
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
            "teacher": Branch("backbone.", ("teacher",), head="projector"),
            "student": Branch("backbone.", ("student",), head="projector"),
        },
        drops={"head.": "projector"},
        siblings=("dino_loss",),
        method="dino",
        convert=official.to_timm,
        fixes={**_RESNET, "vit": {**_VIT, "heads": None, "positions": "bicubic-offset"}},
    ),
    Format(
        "barlow-twins",
        "Barlow Twins' official code",
        branches(backbone="backbone."),
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
        branches(backbone="backbone."),
        key_paths=(("model",),),
        drops={"projector.": "projector"},
        marks=("backbone.", "projector."),
        method="vicreg",
        headed=True,
    ),
    Format(
        "unigrad",
        "UniGrad's official code",
        branches(online="encoder.", momentum="momentum_encoder."),
        drops={
            "projector.": "projector",
            "momentum_projector.": "momentum projector",
            "F": "correlation matrix",
        },
        marks=("encoder.0.weight", "projector."),
        siblings=("F",),
        method="unigrad",
        rename=renamed_children(TORCHVISION_CHILDREN),
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
        branches(backbone="backbone.", encoder="encoder.0."),
        drops={"projector.": "projector", "predictor.": "predictor", "encoder.1.": "projector"},
        marks=("backbone.", "encoder.0."),
        fixes={**_RESNET, "3x3": {**TORCHVISIONS, "stem": "small"}},
        rename=_kuangliu,
    ),
)
