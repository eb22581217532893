"""The table of names against the lists taken from Detectron2's own models."""

from __future__ import annotations

import pytest
from support.checkpoint_files import read_golden

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import RESNETS
from siamtransfer.checkpoints.detectron2_keys import (
    TABLE,
    in_model,
    to_detectron2,
    to_torchvision,
    trunk_shapes,
)
from siamtransfer.detection.detectron2.convertible import layouts
from siamtransfer.detection.detectron2.shapes import expected_shapes

MODELS = read_golden("detectron2/targets.json.gz")["models"]


@pytest.mark.parametrize("model", MODELS)
def test_names_sources_and_shapes_are_those_of_detectron2s_models(model: str) -> None:
    golden = MODELS[model]
    design = RESNETS[f"resnet{golden['depth']}"]
    ours = {
        in_model(name, golden["layout"]): [list(shape), to_torchvision(name)]
        for name, shape in trunk_shapes(design.blocks, design.bottleneck, 64).items()
    }
    without_source = {name for name, (_, source) in golden["tensors"].items() if source is None}
    assert without_source <= {f"roi_heads.res5.norm.{tensor}" for tensor in TABLE[1].tensors}
    assert ours == {name: item for name, item in golden["tensors"].items() if name not in without_source}


def test_the_golden_lists_cover_both_layouts_and_blocks() -> None:
    assert set(MODELS) == {"R18-FPN", "R34-FPN", "R50-FPN", "R101-FPN", "R50-C4", "R101-C4"}
    assert layouts(Architecture("resnet18", 64, "imagenet")) == ("FPN",)
    assert layouts(Architecture("resnet50", 64, "imagenet")) == ("C4", "FPN")


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("width", [16, 64])
def test_every_trunk_translates_there_and_back(name: str, width: int) -> None:
    architecture = Architecture(name, width, "imagenet")
    shapes = architecture.shapes()
    assert {to_detectron2(key): shape for key, shape in shapes.items()} == expected_shapes(architecture)
    assert [to_torchvision(to_detectron2(key)) for key in shapes] == list(shapes)


@pytest.mark.parametrize(
    ("torchvision", "detectron2"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.num_batches_tracked", "stem.conv1.norm.num_batches_tracked"),
        ("layer1.0.bn3.running_var", "res2.0.conv3.norm.running_var"),
        ("layer2.0.downsample.0.weight", "res3.0.shortcut.weight"),
        ("layer4.0.downsample.1.bias", "res5.0.shortcut.norm.bias"),
        ("layer3.35.conv2.weight", "res4.35.conv2.weight"),
    ],
)
def test_examples(torchvision: str, detectron2: str) -> None:
    assert to_detectron2(torchvision) == detectron2
    assert to_torchvision(detectron2) == torchvision


@pytest.mark.parametrize(
    "key",
    [
        *("fc.weight", "conv1.bias", "conv2.weight", "layer5.0.conv1.weight", "layer1.0.conv4.weight"),
        *("layer1.0.conv1.bias", "layer1.0.bn1.gamma", "layer1.0.downsample.2.weight", "layer1.x.bn1.bias"),
        *("res2.0.conv1.weight", "stem.conv1.weight", "conv1.0.weight", "bn1", ""),
    ],
)
def test_names_that_no_trunk_has_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="no tensor of a ResNet trunk in torchvision"):
        to_detectron2(key)
    with pytest.raises(ValueError, match="in detectron2"):
        to_torchvision(f"{key}.x")
