"""The formats of public code bases: manifests of published files, and files built by what their code does."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import (
    GOLDEN,
    build_content,
    random_state,
    read_golden,
    same_tensors,
    save,
    simsiam_checkpoint,
)
from support.public_formats import PUBLIC_FORMATS
from support.thorough import more
from torch import Tensor

from siamtransfer.checkpoints.facts import AmbiguousReading
from siamtransfer.checkpoints.normalisation import CIFAR10, IMAGENET, SWAV
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.utils.errors import UserError

# Every file of reference manifests: its format, the branch that is taken, and the number of keys each rule
# drops.
PUBLIC: dict[str, tuple[str, str, dict[str, int]]] = {
    "barlow_twins_backbone": ("torchvision", "model", {}),
    "barlow_twins_full": ("barlow-twins", "backbone", {"projector": 13, "batch norm of the loss": 3}),
    "dino_r50_backbone": ("torchvision", "model", {}),
    "dino_r50_full": ("dino", "teacher", {"projector": 16, "branch student": 318}),
    "dino_vits16_full": ("dino", "teacher", {"projector": 16, "branch student": 150}),
    "lightly_benchmark_byol": (
        "lightly",
        "model",
        {"projector": 8, "predictor": 8, "teacher's projector": 8, "classifier": 2, "branch teacher": 318},
    ),
    "mmselfsup_simsiam": ("mmselfsup", "backbone", {"projector": 16, "head": 8}),
    "mmselfsup_simsiam_extracted": ("torchvision", "model", {}),
    "moco_v1": ("moco", "query", {"queue": 2, "projector": 2, "momentum projector": 2, "branch key": 318}),
    "moco_v2": ("moco", "query", {"queue": 2, "projector": 4, "momentum projector": 4, "branch key": 318}),
    "moco_v3_r50": (
        "moco-v3",
        "base",
        {"projector": 10, "momentum projector": 10, "predictor": 7, "branch momentum": 318},
    ),
    "moco_v3_vit_small": (
        "moco-v3",
        "base",
        {"projector": 16, "momentum projector": 16, "predictor": 10, "branch momentum": 150},
    ),
    "simsiam_official": ("simsiam", "encoder", {"projector": 17, "predictor": 8}),
    "simsiam_official_linear": ("simsiam-linear", "model", {"classifier": 2}),
    "solo_learn_simsiam": ("solo-learn", "backbone", {"classifier": 2, "projector": 17, "predictor": 8}),
    "solo_learn_simsiam_cifar10": (
        "solo-learn",
        "backbone",
        {"classifier": 2, "projector": 17, "predictor": 8},
    ),
    "swav": ("swav", "model", {"projector": 9, "prototypes": 1}),
    "swav_raw": ("swav", "model", {"projector": 9, "prototypes": 1}),
    "timm_vit_small_patch16_224": ("timm", "model", {"classifier": 2}),
    "vicreg_backbone": ("torchvision", "model", {}),
    "timm_resnet50": ("torchvision", "model", {"classifier": 2}),
    **{
        f"torchvision_{name}": ("torchvision", "model", {"classifier": 2})
        for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d",
        "wide_resnet50_2")
    },
}  # fmt: skip
FURTHER = frozenset(
    (
        "dino_r50_backbone", "mmselfsup_simsiam_extracted", "moco_v1", "simsiam_official_linear", "swav_raw",
        "vicreg_backbone", "torchvision_resnet34", "torchvision_resnet101", "torchvision_resnet152",
        "torchvision_wide_resnet50_2",
    )
)  # fmt: skip
"""Manifests of a form, or of a network's depth, that another one shows as well."""
# What the trunks are called here, where it is not the name in the manifest.
TRUNKS = {
    "dino_vits16_full": "timm:vit_small_patch16_224",
    "timm_vit_small_patch16_224": "timm:vit_small_patch16_224",
    "moco_v3_vit_small": "vit_small_moco_v3",
}

# Files whose stem or heads are ambiguous since readings state what they assume; before, solo-learn's and
# timm's were taken for granted.
SAID = {
    "solo_learn_simsiam_cifar10": ReadingOptions(stem="small-pad2"),
    "timm_vit_small_patch16_224": ReadingOptions(heads=6),
}
TORCHVISIONS = ReadingOptions(normalisation="imagenet", channels="rgb")
"""For detectors, whose files do not say whether their network is MSRA's or torchvision's."""


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Any, dict[str, float]]]:
    """The manifest of that name, the content of a file that it describes, and each tensor's value."""

    def build(golden: str) -> tuple[Any, Any, dict[str, float]]:
        description = read_golden(f"formats/{golden}.json.gz")
        values: dict[str, float] = {}
        return description, build_content(description["content"], values), values

    return build


def test_every_manifest_is_tried() -> None:
    assert {path.name for path in (GOLDEN / "formats").iterdir()} == {f"{name}.json.gz" for name in PUBLIC}


@pytest.mark.parametrize("golden", [more(name) if name in FURTHER else name for name in PUBLIC])
def test_public_containers(tmp_path: Path, public: Any, golden: str) -> None:
    name, branch, dropped = PUBLIC[golden]
    description, content, values = public(golden)
    options = SAID.get(golden)
    path = save(content, tmp_path)
    if options is not None:
        with pytest.raises(AmbiguousReading):
            read_backbone(path)
    read = read_backbone(path, options=options)
    assert (read.format, read.branch) == (name, branch)
    assert read.name == TRUNKS.get(golden, description["arch"])
    if read.width is not None:
        stem = {7: "imagenet", 3: "small-pad2"}[description.get("conv1_shape", [64, 3, 7, 7])[-1]]
        assert (read.width, read.stem) == (64, stem)
    assert read.dropped == dropped
    assert read.used == len(description["expected"]) == len(read.state)
    for key, source in description["expected"].items():
        assert bool((read.state[key] == values[source]).all()), key
    cifar = golden == "solo_learn_simsiam_cifar10"
    assert read.normalisation == (SWAV if name == "swav" else CIFAR10 if cifar else IMAGENET)
    if golden == "simsiam_official":
        assert (read.meta["method"], read.meta["epochs"], read.meta["arch"]) == ("simsiam", 100, "resnet50")
    if golden == "mmselfsup_simsiam":
        assert read.meta["epochs"] == 100


@pytest.mark.parametrize(
    ("golden", "branch", "entry", "prefix"),
    [
        ("dino_r50_full", "student", "student", "module.backbone."),
        more("moco_v2", "key", "state_dict", "module.encoder_k."),
        ("moco_v3_r50", "momentum", "state_dict", "module.momentum_encoder."),
        more("lightly_benchmark_byol", "teacher", "state_dict", "teacher_backbone."),
    ],
)
def test_another_branch_is_another_backbone(
    tmp_path: Path, public: Any, golden: str, branch: str, entry: str, prefix: str
) -> None:
    description, content, values = public(golden)
    path = save(content, tmp_path)
    default, other = read_backbone(path), read_backbone(path, branch=branch)
    assert (other.branch, set(other.branches)) == (branch, set(default.branches))
    assert other.digest != default.digest
    for key in description["expected"]:
        assert bool((other.state[key] == values[f"{entry}/{prefix}{key}"]).all()), key
    with pytest.raises(UserError, match=f"no branch 'sudent': it has {default.branch}, {branch}"):
        read_backbone(path, branch="sudent")


def innermost(content: Any) -> list[dict[str, Any]]:
    """All dicts of tensors in a content."""
    if not isinstance(content, dict):
        return []
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return [content]
    return [tensors for value in content.values() for tensors in innermost(value)]


TRUNK = re.compile(r"(^|\.)(conv1|bn1|layer\d|blocks|patch_embed|cls_token|pos_embed|norm)(\.|$)")
HEADED = [name for name, (_, _, dropped) in PUBLIC.items() if dropped]


@pytest.mark.parametrize("golden", [more(name) if name in FURTHER else name for name in HEADED])
def test_heads_alone_are_refused(tmp_path: Path, public: Any, golden: str) -> None:
    _, content, _ = public(golden)
    for tensors in innermost(content):
        for key in [key for key in tensors if TRUNK.search(key)]:
            del tensors[key]
    with pytest.raises(UserError, match=r"only heads|no known format|holds no tensors") as caught:
        read_backbone(save(content, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "golden",
    [more(name) if name in FURTHER else name for name in PUBLIC if not name.startswith("torchvision")],
)
def test_one_lost_or_added_tensor_is_an_error(tmp_path: Path, public: Any, golden: str) -> None:
    description, content, _ = public(golden)
    *way, key = next(
        source
        for name, source in description["expected"].items()
        if name.endswith(("bn2.bias", "norm2.bias"))
    ).split("/")
    tensors = content
    for entry in way:
        tensors = tensors[entry]
    lost = tensors.pop(key)
    with pytest.raises(UserError, match=r"lacks the tensor '.*(bn|norm)2\.bias'"):
        read_backbone(save(content, tmp_path))
    tensors[key] = lost
    tensors["gate.weight"] = torch.ones(2, 2)
    with pytest.raises(UserError, match=r"gate|no known format"):
        read_backbone(save(content, tmp_path))


# Formats without a manifest.


@pytest.mark.parametrize("what", PUBLIC_FORMATS)
def test_other_public_formats(tmp_path: Path, what: str) -> None:
    build, name, branches = PUBLIC_FORMATS[what]
    states = {"a": random_state("resnet18", 8, seed=1), "b": random_state("resnet18", 8, seed=2)}
    path = save(build(states["a"], states["b"]), tmp_path)
    options = TORCHVISIONS if name == "detectron2" else None
    read = read_backbone(path, options=options)
    assert (read.format, read.name, read.width) == (name, "resnet18", 8)
    assert same_tensors(read.state, states["a"])
    assert set(read.branches) == {read.branch, *branches}
    for branch, expected in branches.items():
        other = read_backbone(path, branch=branch)
        assert other.branch == branch
        assert same_tensors(other.state, states[expected])
    with pytest.raises(UserError, match=r"lacks the tensor 'layer2\.0\.bn1\.bias'"):
        del states["a"]["layer2.0.bn1.bias"]
        read_backbone(save(build(states["a"], states["a"]), tmp_path))


def test_moco_v3s_small_vit_has_its_own_heads() -> None:
    """MoCo v3's small ViT has 12 heads: its tensors fit timm's 6 as well, but the features would be
    others."""
    module, _ = load_backbone("random:vit_small_moco_v3")
    assert module.model.blocks[0].attn.num_heads == 12  # type: ignore[union-attr]
    assert read_backbone("random:vit_small_moco_v3").name == "vit_small_moco_v3"


def test_old_settings_beside_the_tensors_are_not_run(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    content = simsiam_checkpoint(state, "resnet18")
    content["args"] = argparse.Namespace(arch="resnet18", epochs=100, out=Path("x"))
    read = read_backbone(save(content, tmp_path))
    assert same_tensors(read.state, state)
    assert (read.meta["arch"], read.meta["epochs"]) == ("resnet18", 100)
