"""timm's networks against what is read of their files: ResNets, anti-aliased ones, ViTs of any heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.checkpoint_files import save
from support.originals import HALF, IMAGENET, TOLERANCE, as_trained, difference, normalised, sharpened
from support.public_formats import HEAD, under
from support.thorough import more
from torch import Tensor, nn

from siamtransfer.utils.errors import UserError


def build(name: str, **choices: Any) -> Any:
    torch.manual_seed(0)
    return as_trained(timm.create_model(name, pretrained=False, num_classes=10, **choices))


class Features:
    """What a model of timm computes of pixels before its classifier, under its own mean and std."""

    def __init__(self, model: Any, mean: Any = IMAGENET[0], std: Any = IMAGENET[1]):
        self.model, self.mean, self.std = model, mean, std

    def __call__(self, images: Tensor) -> Tensor:
        maps = self.model.forward_features(normalised(images, self.mean, self.std))
        return self.model.forward_head(maps, pre_logits=True)


def without_head(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("head")}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", more("resnext50_32x4d"), more("wide_resnet50_2")])
def test_a_resnet_of_torchvisions_form(tmp_path: Path, name: str) -> None:
    model = build(name)
    file = save(model.state_dict(), tmp_path)
    assert difference(file, Features(model))[0] < TOLERANCE


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 16), more("resnet18", 8), ("resnet50", 8)])
def test_a_dilated_resnet(tmp_path: Path, name: str, stride: int) -> None:
    model = build(name, output_stride=stride)
    file = save(model.state_dict(), tmp_path)
    assert difference(file, Features(model), output_stride=stride)[0] < TOLERANCE


@pytest.mark.parametrize(
    "name", [more("resnetblur50"), "resnetaa50", "resnetblur18", "resnet50d", more("seresnet50")]
)
def test_another_resnet_by_its_name(tmp_path: Path, name: str) -> None:
    model = build(name)
    file = save(model.state_dict(), tmp_path)
    error, read = difference(file, Features(model), architecture=f"timm:{name}")
    assert error < TOLERANCE
    assert read.name == f"timm:{name}"


@pytest.mark.parametrize("name", ["resnetblur50", "resnetaa50"])
def test_an_anti_aliased_resnet_is_read_by_its_side_file_or_with_an_assumption(
    tmp_path: Path, name: str
) -> None:
    model = build(name)
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    error, read = difference(tmp_path / "model.safetensors", Features(model))
    assert error > 1e-3  # its tensors are those of a plain ResNet-50
    assert read.reading.assumptions()
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name, "num_classes": 10}))
    assert difference(tmp_path / "model.safetensors", Features(model))[0] < TOLERANCE


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", more("vit_base_patch32_224")])
def test_a_vit(tmp_path: Path, name: str) -> None:
    model = sharpened(build(name))
    file = save(model.state_dict(), tmp_path)
    assert difference(file, Features(model), 224)[0] < TOLERANCE


def test_an_augreg_vit_takes_images_of_mean_and_std_a_half(tmp_path: Path) -> None:
    name = "vit_small_patch16_224.augreg_in21k_ft_in1k"
    model = sharpened(build(name))
    assert (model.pretrained_cfg["mean"], model.pretrained_cfg["std"]) == HALF
    file = save(model.state_dict(), tmp_path)
    original = Features(model, *HALF)
    assert difference(file, original, 224, architecture=f"timm:{name}")[0] < TOLERANCE
    assert difference(file, original, 224, heads=6, normalisation="half")[0] < TOLERANCE
    config = {"architecture": name.partition(".")[0], "pretrained_cfg": {"mean": HALF[0], "std": HALF[1]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert difference(file, original, 224)[0] < TOLERANCE


@pytest.mark.parametrize("heads", [6, 12])
def test_a_small_vit_is_read_with_the_heads_that_are_said_and_refused_without(
    tmp_path: Path, heads: int
) -> None:
    model = sharpened(build("vit_small_patch16_224", num_heads=heads))
    file = save(without_head(model), tmp_path)
    original = Features(model)
    assert difference(file, original, 224, heads=heads)[0] < TOLERANCE
    assert difference(file, original, 224, heads=18 - heads)[0] > 1e-3
    with pytest.raises(UserError, match="heads"):
        difference(file, original, 224)


def test_moco_v3s_small_vit_has_twelve_heads(tmp_path: Path) -> None:
    model = sharpened(build("vit_small_patch16_224", num_heads=12))
    state = without_head(model)
    content = {
        "state_dict": {
            **under("module.base_encoder.", state),
            **under("module.base_encoder.head.", HEAD),
            **under("module.momentum_encoder.", state),
            **under("module.momentum_encoder.head.", HEAD),
            **under("module.predictor.", HEAD),
        },
        "arch": "vit_small",
        "epoch": 300,
    }
    file = save(content, tmp_path)
    error, read = difference(file, Features(model), 224)
    assert (read.format, read.name) == ("moco-v3", "vit_small_moco_v3")
    assert error < TOLERANCE


def test_dinos_small_vit_has_six_heads(tmp_path: Path) -> None:
    model = sharpened(build("vit_small_patch16_224"))
    state = without_head(model)
    content = {
        "student": {**under("module.backbone.", state), **under("module.head.", HEAD)},
        "teacher": {**under("backbone.", state), **under("head.", HEAD)},
        "dino_loss": {"center": torch.zeros(1, 4)},
        "epoch": 800,
    }
    assert difference(save(content, tmp_path), Features(model), 224)[0] < TOLERANCE


@pytest.mark.parametrize(
    "name", ["convnext_atto", "regnety_002", more("resnetv2_50"), more("swin_tiny_patch4_window7_224")]
)
def test_any_model_of_timm_by_its_name(tmp_path: Path, name: str) -> None:
    model = build(name)
    file = save(model.state_dict(), tmp_path)
    assert difference(file, Features(model), 224, architecture=f"timm:{name}")[0] < TOLERANCE
