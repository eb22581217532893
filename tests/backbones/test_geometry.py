"""What tensors do not show (stems, stride, dilation, heads), against networks of torchvision and timm."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from support.originals import as_trained, sharpened
from support.thorough import more
from torch import nn

from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_layers import FeatureLayers
from siamtransfer.backbones.fold_batchnorm import fold_batchnorm
from siamtransfer.backbones.identify import architecture_of
from siamtransfer.backbones.names import STEMS, Stem
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.backbones.timm import head_count, pretrained_config
from siamtransfer.utils.errors import UserError


def ours(architecture: Architecture, theirs: nn.Module) -> Backbone:
    backbone = architecture.build().eval()
    tensors = theirs.state_dict()
    backbone.load_state_dict({key: tensor for key, tensor in tensors.items() if not key.startswith("fc.")})
    return backbone


def torchvisions(name: str, **choices: Any) -> Any:
    torch.manual_seed(0)
    network = as_trained(torchvision.models.get_model(name, weights=None, **choices))
    network.fc = nn.Identity()
    return network


@torch.no_grad()
def error(backbone: nn.Module, theirs: nn.Module, size: int = 64) -> float:
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = theirs(x)
    return float((backbone(x) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("stem", STEMS)
def test_stems(stem: Stem) -> None:
    theirs = torchvisions("resnet18")
    kernel, stride, padding, pool = STEMS[stem]
    theirs.conv1 = nn.Conv2d(3, 64, kernel, stride, padding, bias=False)
    if not pool:
        theirs.maxpool = nn.Identity()
    architecture = Architecture("resnet18", 64, stem)
    backbone = ours(architecture, theirs)
    assert error(backbone, theirs) < 1e-5
    assert Architecture.of(backbone) == architecture
    assert architecture_of(architecture.shapes()).stem == ("imagenet" if kernel == 7 else "small")


@pytest.mark.parametrize(("stages", "stride"), [((False, False, True), 16), ((False, True, True), 8)])
def test_dilation_is_torchvisions(stages: tuple[bool, ...], stride: int) -> None:
    theirs = torchvisions("resnet50", replace_stride_with_dilation=list(stages))
    assert error(ours(Architecture("resnet50", 64, "imagenet", output_stride=stride), theirs), theirs) < 1e-5


@pytest.mark.parametrize("stride", [16, 8])
def test_dilation_of_basic_blocks_is_timms(stride: int) -> None:
    theirs = as_trained(timm.create_model("resnet18", num_classes=0, output_stride=stride))
    assert error(ours(Architecture("resnet18", 64, "imagenet", output_stride=stride), theirs), theirs) < 1e-5


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_stride_in_the_first_convolution(name: str) -> None:
    theirs = torchvisions(name)
    for stage in (theirs.layer2, theirs.layer3, theirs.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    assert error(ours(Architecture(name, 64, "imagenet", stride_in_1x1=True), theirs), theirs) < 1e-5
    assert error(ours(Architecture(name, 64, "imagenet"), theirs), theirs) > 1e-2


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture("resnet50", 16, "imagenet", stride_in_1x1=True, output_stride=16),
        Architecture("resnet18", 16, "small-stride2-pool", output_stride=8),
    ],
)
def test_folding_and_layers_keep_the_geometry(architecture: Architecture) -> None:
    backbone = as_trained(architecture.build())
    assert isinstance(backbone, ResNetBackbone)
    folded = fold_batchnorm(backbone)
    assert Architecture.of(folded) == architecture
    assert error(folded, backbone) < 1e-5
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        layers = FeatureLayers(backbone, ["layer3+output"])
        assert torch.allclose(layers(x)[:, -backbone.dim :], backbone(x))


@pytest.mark.parametrize(
    ("name", "heads"),
    [("vit_small_patch16_224", 12), more("vit_small_patch16_224", 8), ("vit_tiny_patch16_224", 6)],
)
def test_heads_of_a_vit(name: str, heads: int) -> None:
    theirs = sharpened(as_trained(timm.create_model(name, num_classes=0, num_heads=heads)))
    usual = Architecture(f"timm:{name}")
    architecture = usual.with_heads(heads)
    assert architecture.attention_heads == heads
    assert error(ours(architecture, theirs), theirs, 224) < 1e-5
    assert error(ours(usual, theirs), theirs, 224) > 1e-4
    assert architecture.with_heads(head_count(f"timm:{name}") or 0) == usual


def test_moco_v3s_small_vit_keeps_its_name() -> None:
    assert Architecture("timm:vit_small_patch16_224").with_heads(12) == Architecture("vit_small_moco_v3")
    assert Architecture("vit_small_moco_v3").with_heads(6) == Architecture("timm:vit_small_patch16_224")
    assert Architecture("vit_small_moco_v3").attention_heads == 12
    assert Architecture("resnet50", 64, "imagenet").attention_heads is None


@pytest.mark.parametrize(
    ("architecture", "heads", "message"),
    [
        (Architecture("timm:vit_small_patch16_224"), 5, "do not divide"),
        (Architecture("timm:vit_small_patch16_224"), 0, "do not divide"),
        (Architecture("resnet50", 64, "imagenet"), 6, "no attention heads"),
        (Architecture("timm:resnetblur50"), 6, "no plain ViT"),
    ],
)
def test_heads_that_cannot_be(architecture: Architecture, heads: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        architecture.with_heads(heads)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet18", "stride_in_1x1": True}, "no 1x1 convolution"),
        ({"name": "resnet18", "output_stride": 4}, "none of 32, 16, 8"),
        ({"name": "resnet10t", "output_stride": 16}, "torchvision's ResNets only"),
        ({"name": "resnet10t", "stride_in_1x1": True}, "torchvision's ResNets only"),
    ],
)
def test_choices_that_do_not_apply(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(**arguments)


def test_records_say_only_what_differs_from_the_usual() -> None:
    assert Architecture("resnet18", 16, "small").as_dict() == {
        "name": "resnet18",
        "width": 16,
        "stem": "small",
    }
    assert Architecture("resnet50", 64, "imagenet", True, 16).as_dict() == {
        "name": "resnet50",
        "width": 64,
        "stem": "imagenet",
        "stride_in_1x1": True,
        "output_stride": 16,
    }


def test_the_normalisation_of_timms_weights_needs_their_tag() -> None:
    assert pretrained_config("timm:vit_small_patch16_224") is None
    config = pretrained_config("timm:vit_small_patch16_224.augreg_in21k")
    assert config is not None
    assert (config["mean"], config["std"]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
