"""Checkpoints of this program that were saved before they declared their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import own_checkpoint, random_state, same_tensors, save

from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.checkpoints.read_backbone import digest_of, load_backbone, read_backbone
from siamtransfer.methods import METHODS
from siamtransfer.pretraining.build import describe_backbone
from siamtransfer.utils.errors import UserError

NARROW = {"name": "resnet18", "width": 8, "stem": "imagenet"}
CHOSEN = (
    Architecture("timm:test_vit", heads=4, image_size=96, pool="avg", activation="quick_gelu",
                 norm_eps=1e-12, positions="bicubic-offset"),
    Architecture("resnet50", 8, "imagenet", stride_in_1x1=True, output_stride=16),
    Architecture("resnet18", 8, "small", norm="group-ws"),
    Architecture("resnet18", 8, "small", norm="none"),
)  # fmt: skip
"""Networks that name, width and stem do not describe."""


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_own_checkpoints(tmp_path: Path, stem: Any) -> None:
    state = random_state("resnet18", 16, stem)
    read = read_backbone(save(own_checkpoint(state, "resnet18", 16, stem), tmp_path))
    assert (read.format, read.name, read.width, read.stem) == ("siamtransfer", "resnet18", 16, stem)
    assert same_tensors(read.state, state)
    assert read.digest == digest_of(state)
    assert read.normalisation == ((0.5, 0.4, 0.3), (0.25, 0.2, 0.125))
    assert read.dropped == {"projector": 2, "predictor": 2}
    assert read.meta["epochs"] == 30
    assert read.meta["config"] == {"optim": {"lr": 0.05}}
    assert read.meta["method"] == "simsiam"


def test_own_checkpoints_say_which_network_is_evaluated(tmp_path: Path) -> None:
    state, target = random_state("resnet18", 16, seed=0), random_state("resnet18", 16, seed=1)
    content = own_checkpoint(state, "resnet18", 16, "imagenet")
    content["model"] |= {f"target_backbone.{key}": tensor for key, tensor in target.items()}
    for evaluated, branch, expected in (
        (None, "backbone", state), ("backbone", "backbone", state), ("target_backbone", "target", target),
    ):  # fmt: skip
        if evaluated:
            content["backbone"]["evaluated"] = evaluated
        read = read_backbone(save(content, tmp_path))
        assert read.branch == branch
        assert torch.equal(read.state["conv1.weight"], expected["conv1.weight"])
        assert read_backbone(save(content, tmp_path), branch="backbone").branch == "backbone"
    content["backbone"]["evaluated"] = "teacher"
    with pytest.raises(UserError, match="says that 'teacher' is evaluated, and there is no such network"):
        read_backbone(save(content, tmp_path))
    content["backbone"]["evaluated"] = "target_backbone"
    content["model"] = {key: value for key, value in content["model"].items() if "target" not in key}
    with pytest.raises(UserError, match="has no branch 'target': it has backbone"):
        read_backbone(save(content, tmp_path))


def test_own_checkpoints_of_timm_models(tmp_path: Path) -> None:
    backbone = build_backbone("timm:resnet10t")
    path = save(own_checkpoint(dict(backbone.state_dict()), "timm:resnet10t", None, None), tmp_path)
    module, read = load_backbone(path)
    assert (read.name, read.width, read.stem) == ("timm:resnet10t", None, None)
    assert same_tensors(read.state, dict(backbone.state_dict()))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(module(images), backbone.eval()(images))


def test_compiled_parts_of_own_checkpoints(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    content = own_checkpoint(state, "resnet18", 8, "imagenet")
    content["model"] = {
        key.replace("backbone.", "backbone._orig_mod."): v for key, v in content["model"].items()
    }
    assert same_tensors(read_backbone(save(content, tmp_path)).state, state)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("version", 3, "another version"),
        ("backbone", None, "'backbone' is not understood"),
        ("backbone", {"name": "resnet18", "width": "8", "stem": "imagenet"}, "'backbone' is not understood"),
        ("backbone", {"name": "resnet18", "width": True, "stem": "imagenet"}, "width is True"),
        ("backbone", {"name": "resnet18", "width": 8}, "'backbone' is not understood: it lacks stem"),
        ("backbone", {**NARROW, "gates": 3}, "a choice 'gates' is not known to this version"),
        ("backbone", {**NARROW, "stride_in_1x1": 1}, "stride_in_1x1 is 1"),
        ("backbone", {**NARROW, "output_stride": 24}, "output_stride is 24"),
        ("backbone", {**NARROW, "positions": "nearest"}, "positions is 'nearest'"),
        ("backbone", {**NARROW, "norm_eps": 0}, "norm_eps is 0"),
        ("backbone", {**NARROW, "heads": 0}, "heads is 0"),
        ("backbone", {**NARROW, "in_channels": None}, "in_channels is None"),
        ("backbone", {**NARROW, "heads": 4}, "resnet18 has no attention heads"),
        ("backbone", {"name": "resnet18", "width": 16, "stem": "imagenet"}, "has shape"),
        ("backbone", {"name": "resnet34", "width": 8, "stem": "imagenet"}, "lacks the tensor"),
        ("backbone", {"name": "resnet18", "width": 8, "stem": "small"}, r"has shape \(8, 3, 7, 7\)"),
        ("backbone", {"name": "resnet81", "width": 8, "stem": "imagenet"}, "resnet81.*did you mean"),
        ("normalisation", {"mean": [0.5], "std": [0.5]}, "for each of 3 channels"),
        ("normalisation", {"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]}, "positive std"),
        ("normalisation", {"mean": 0.5}, "'normalisation' is not understood"),
        ("model", [1, 2], "no dict of tensors"),
    ],
)
def test_own_checkpoints_that_contradict_themselves(
    tmp_path: Path, entry: str, value: Any, message: str
) -> None:
    content = own_checkpoint(random_state("resnet18", 8), "resnet18", 8, "imagenet")
    with pytest.raises(UserError, match=message):
        read_backbone(save({**content, entry: value}, tmp_path))
    without = {key: item for key, item in content.items() if key != entry}
    with pytest.raises(UserError, match=f"lacks its entry '{entry}'|no dict of tensors"):
        read_backbone(save(without, tmp_path))


@pytest.mark.parametrize("architecture", CHOSEN)
def test_all_choices_of_a_network_are_recorded(architecture: Architecture, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = architecture.build().eval()
    method = METHODS["simsiam"](backbone, METHODS["simsiam"].Config(dim=32))
    recorded = describe_backbone(method)
    assert recorded["version"] == 2  # programs that know version 1 would build another network
    content = own_checkpoint(dict(backbone.state_dict()), "", None, None) | recorded
    module, read = load_backbone(save(content, tmp_path))
    assert read.architecture == architecture
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(module(images), backbone(images))


def test_a_network_without_further_choices_is_recorded_as_before() -> None:
    for architecture in (Architecture("timm:test_vit"), Architecture("resnet18", 8, "small", in_channels=4)):
        method = METHODS["simsiam"](architecture.build(), METHODS["simsiam"].Config(dim=32))
        recorded = describe_backbone(method)
        channels = {} if architecture.in_channels == 3 else {"in_channels": 4}
        named = {key: getattr(architecture, key) for key in ("name", "width", "stem")}
        more = {"dim": method.backbone.dim, "evaluated": "backbone"}
        assert recorded == {"backbone": named | channels | more, "version": 1}
