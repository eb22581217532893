"""The trunks: torchvision's numbers, names and initialisation; widths and stems; timm; names from shapes."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.backbones.identify import architecture_of
from siamtransfer.backbones.names import RESNETS, WITHOUT_WEIGHTS
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.utils.errors import UserError


def build_resnet(name: str, **choices: Any) -> ResNetBackbone:
    backbone = build_backbone(name, **choices)
    assert isinstance(backbone, ResNetBackbone)
    return backbone


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_equals_torchvision_with_the_same_weights(name: str) -> None:
    theirs = torchvision.models.get_model(name, weights=None).eval()
    ours = build_resnet(name).eval()
    ours.load_state_dict(
        {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    )
    images = torch.randn(2, 3, 64, 96)
    nodes = ["layer1", "layer2", "layer3", "layer4", "flatten"]
    with torch.no_grad():
        expected = create_feature_extractor(theirs, nodes)(images)
        for output, node in zip([*ours.stages(images), ours(images)], nodes, strict=True):
            assert torch.equal(output, expected[node]), node
    assert ours.dim == theirs.fc.in_features == expected["flatten"].shape[1]


def build_theirs(name: str) -> nn.Module:
    if name in WITHOUT_WEIGHTS:
        return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, list(RESNETS[name].blocks))
    return torchvision.models.get_model(name, weights=None)


def test_resnet10_computes_what_torchvisions_class_does() -> None:
    theirs = build_theirs("resnet10").eval()
    ours = build_backbone("resnet10").eval()
    state = theirs.state_dict()
    ours.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})
    theirs.fc = nn.Identity()  # type: ignore[assignment]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("name", RESNETS)
def test_tensor_names_and_shapes_are_torchvisions_without_fc(name: str) -> None:
    with torch.device("meta"):
        theirs = build_theirs(name).state_dict()
    expected = {key: tuple(value.shape) for key, value in theirs.items() if not key.startswith("fc.")}
    shapes = Architecture(name, 64, "imagenet").shapes()
    assert shapes == expected
    assert list(shapes) == list(expected)


@pytest.mark.parametrize(("width", "dim"), [(16, 128), (64, 512)])
def test_width_scales_every_stage(width: int, dim: int) -> None:
    backbone = build_resnet("resnet18", width=width, stem="small")
    stages = backbone.stages(torch.zeros(2, 3, 32, 32))
    assert [tuple(stage.shape) for stage in stages] == [
        (2, width, 32, 32),  # the small stem keeps the resolution
        (2, 2 * width, 16, 16),
        (2, 4 * width, 8, 8),
        (2, 8 * width, 4, 4),
    ]
    assert (backbone.name, backbone.width, backbone.stem, backbone.dim) == ("resnet18", width, "small", dim)
    imagenet = build_resnet("resnet18", width=width).eval()
    assert tuple(imagenet.stages(torch.zeros(2, 3, 32, 32))[0].shape) == (2, width, 8, 8)


def test_initialisation_is_torchvisions() -> None:
    backbone = build_backbone("resnet50", width=32)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            expected = (2 / fan_out) ** 0.5
            assert abs(float(module.weight.detach().std()) / expected - 1) < 0.06, name
        elif isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all() and (module.bias == 0).all()), name


@pytest.mark.parametrize(("name", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_zero_initialised_residuals(name: str, last: str) -> None:
    backbone = build_backbone(name, width=8, zero_init_residual=True)
    for key, module in backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            in_block = "layer" in key and key.endswith(last)
            assert bool((module.weight == (0 if in_block else 1)).all()), key


def test_architecture_is_recognised_by_its_tensors() -> None:
    for name in RESNETS:
        for architecture in (Architecture(name, 64, "imagenet"), Architecture(name, 16, "small")):
            assert architecture_of(architecture.shapes()) == architecture


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.weight": (64, 3, 5, 5)}, "first convolution"),
        ({"conv1.0.weight": (32, 3, 3, 3)}, "several convolutions"),
        ({"conv1.weight": None}, "lacks the first layers"),
        ({"layer3.2.conv1.weight": (256, 256, 3, 3)}, "are none of"),
    ],
)
def test_unknown_trunks_are_named(change: dict[str, tuple[int, ...] | None], message: str) -> None:
    shapes = {**Architecture("resnet18", 64, "imagenet").shapes(), **change}
    with pytest.raises(ValueError, match=message):
        architecture_of({key: shape for key, shape in shapes.items() if shape is not None})


def test_shapes_draw_no_random_number() -> None:
    state = torch.get_rng_state()
    Architecture("resnet18", 64, "imagenet").shapes()
    Architecture("timm:resnet10t").shapes()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("asked", ["timm:resnet10t", "resnet10t", "timm:vit_tiny_patch16_224"])
def test_timm_models_keep_timms_names_behind_the_same_contract(asked: str) -> None:
    import timm

    backbone = build_backbone(asked).eval()
    assert backbone.name == f"timm:{asked.removeprefix('timm:')}"
    assert (backbone.width, backbone.stem) == (None, None)
    theirs = timm.create_model(asked.removeprefix("timm:"), num_classes=0).eval()
    nn.Sequential(backbone).load_state_dict({f"0.{key}": value for key, value in theirs.state_dict().items()})
    assert list(backbone.state_dict()) == list(theirs.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        h = backbone(images)
        assert torch.equal(h, theirs(images))
    assert h.shape == (1, backbone.dim)
    incomplete = dict(list(theirs.state_dict().items())[1:])
    with pytest.raises(RuntimeError, match="Missing key"):
        backbone.load_state_dict(incomplete)


def test_timm_prefix_prefers_timms_model() -> None:
    assert build_backbone("resnet18").name == "resnet18"
    assert build_backbone("timm:resnet18").name == "timm:resnet18"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet51"}, "did you mean .*resnet50"),
        ({"name": "timm:resnet18x"}, "did you mean .*resnet18"),
        ({"name": "qqqqqq"}, "known are resnet10"),
        ({"name": "resnet10t", "width": 32}, "torchvision's ResNets only"),
        ({"name": "resnet10t", "stem": "small"}, "torchvision's ResNets only"),
        ({"name": "resnet18", "width": 0}, "without channels"),
        ({"name": "resnext50_32x4d", "width": 8}, "without channels"),
        ({"name": "resnet18", "stem": "tiny"}, "'tiny' is unknown"),
    ],
)
def test_wrong_names_and_choices_are_user_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(**arguments)  # type: ignore[arg-type]


def test_a_vit_takes_small_crops_and_computes_what_timms_does_at_its_own_size() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("vit_tiny_patch16_224").eval()
    plain = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0).eval()
    plain.load_state_dict(backbone.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(backbone(x), plain(x))
        assert backbone(x[:, :, :96, :96]).shape == (1, 192)


def test_stochastic_depth_is_for_timms_models() -> None:
    backbone = build_backbone("vit_tiny_patch16_224", drop_path=0.1)
    rates = [m.drop_prob for m in backbone.modules() if hasattr(m, "drop_prob")]
    assert max(rates) == pytest.approx(0.1)
    with pytest.raises(UserError, match="stochastic depth"):
        build_backbone("resnet18", drop_path=0.1)
