"""torchvision's networks against what is read of their files, in every format that wraps such a network."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from support.checkpoint_files import save
from support.originals import IMAGENET, TOLERANCE, as_trained, difference, normalised
from support.public_formats import HEAD, PUBLIC_FORMATS, under
from support.thorough import more
from torch import Tensor, nn

NORMALISATIONS = {"swav": (IMAGENET[0], (0.228, 0.224, 0.225)), "directpred": ((0.0,) * 3, (1.0,) * 3)}
"""Of the formats that fix another than ImageNet's."""
SAID: dict[str, dict[str, Any]] = {
    "detectron2": {"channels": "rgb", "normalisation": "imagenet"},
    "torchvision-segmentation": {"output_stride": 32},
}
"""What the user says where a format leaves it open and two readings are common, or where the file is not as
usual: segmenters have dilated trunks, and torchvision's ResNet-18 has none."""


def build(name: str, seed: int = 0, **choices: Any) -> Any:
    return copy.deepcopy(_built(name, seed)) if not choices else _build(name, seed, **choices)


def _build(name: str, seed: int, **choices: Any) -> Any:
    torch.manual_seed(seed)
    return as_trained(torchvision.models.get_model(name, weights=None, **choices), seed)


_built = functools.cache(_build)  # random weights take longer than a copy


def features(
    network: nn.Module, mean: Any = IMAGENET[0], std: Any = IMAGENET[1]
) -> Callable[[Tensor], Tensor]:
    """What the network computes of pixels before its classifier."""
    network.fc = nn.Identity()
    return lambda images: network(normalised(images, mean, std))


def trunk(network: nn.Module) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in network.state_dict().items() if not key.startswith("fc.")}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", more("resnext50_32x4d"), more("wide_resnet50_2")])
def test_a_state_dict(tmp_path: Path, name: str) -> None:
    network = build(name)
    file = save(network.state_dict(), tmp_path)
    error, read = difference(file, features(network))
    assert error < TOLERANCE
    assert read.reading.assumptions()


@pytest.mark.parametrize(("stages", "stride"), [more([False, False, True], 16), ([False, True, True], 8)])
def test_a_dilated_network(tmp_path: Path, stages: list[bool], stride: int) -> None:
    network = build("resnet50", replace_stride_with_dilation=stages)
    file = save(network.state_dict(), tmp_path)
    original = features(network)
    assert difference(file, original, output_stride=stride)[0] < TOLERANCE
    error, read = difference(file, original)
    assert error > 0.1
    assert any("dilation" in sentence for sentence in read.reading.assumptions())


STEMS: dict[str, tuple[nn.Module, nn.Module]] = {
    "imagenet-nopool": (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.Identity()),
    "small": (nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()),
    "small-pad2": (nn.Conv2d(3, 64, 3, 1, 2, bias=False), nn.Identity()),
    "small-pool": (nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.MaxPool2d(3, 2, 1)),
    "small-stride2": (nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.Identity()),
    "small-stride2-pool": (nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.MaxPool2d(3, 2, 1)),
}


# checkpoints/test_reading.py has the others.
@pytest.mark.parametrize("stem", [stem if stem == "small-stride2-pool" else more(stem) for stem in STEMS])
def test_a_stem_that_its_tensors_do_not_show(tmp_path: Path, stem: str) -> None:
    network = build("resnet18")
    network.conv1, network.maxpool = STEMS[stem]
    file = save(network.state_dict(), tmp_path)
    assert difference(file, features(network), stem=stem)[0] < TOLERANCE


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_the_stride_in_either_convolution_and_channels_in_either_order(
    tmp_path: Path, stride_in_1x1: bool
) -> None:
    network = build("resnet50")
    for stage in (network.layer2, network.layer3, network.layer4) if stride_in_1x1 else ():
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    file = save(network.state_dict(), tmp_path)
    rgb = features(network)
    said = {"stride_in_1x1": stride_in_1x1, "normalisation": "none"}
    assert difference(file, lambda images: rgb_of(network)(images), channels="rgb", **said)[0] < TOLERANCE
    assert (
        difference(file, lambda images: rgb_of(network)(images.flip(1)), channels="bgr", **said)[0]
        < TOLERANCE
    )
    assert difference(file, rgb, channels="rgb", **said)[0] > 1e-2  # another normalisation is seen


def rgb_of(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return features(network, (0.0,) * 3, (1.0,) * 3)


def _first_of_two(name: str) -> Any:
    return PUBLIC_FORMATS[name][0]


FIRST = {form: name for name, (_, form, _) in reversed(PUBLIC_FORMATS.items())}
"""The first file of every format."""


@pytest.mark.parametrize(
    "name", [name if FIRST[form] == name else more(name) for name, (_, form, _) in PUBLIC_FORMATS.items()]
)
def test_a_code_base_that_trains_torchvisions_resnet(tmp_path: Path, name: str) -> None:
    network, other = build("resnet18"), build("resnet18", 1)
    content, form, branches = PUBLIC_FORMATS[name]
    file = save(content(trunk(network), trunk(other)), tmp_path)
    mean, std = NORMALISATIONS.get(form, IMAGENET)
    said = SAID.get(form, {})
    error, read = difference(file, features(network, mean, std), **said)
    assert read.format == form
    assert error < TOLERANCE
    for branch, which in branches.items():
        chosen = network if which == "a" else other
        assert difference(file, features(chosen, mean, std), branch=branch, **said)[0] < TOLERANCE


OFFICIAL: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "simsiam": lambda a: {
        "state_dict": {**under("module.encoder.", a), **under("module.encoder.fc.", HEAD)},
        "arch": "resnet18",
        "epoch": 100,
    },
    "moco": lambda a: {
        "state_dict": {
            **under("module.encoder_q.", a),
            **under("module.encoder_q.fc.", HEAD),
            **under("module.encoder_k.", a),
            **under("module.encoder_k.fc.", HEAD),
            "module.queue": torch.ones(4, 8),
            "module.queue_ptr": torch.zeros(1, dtype=torch.int64),
        },
        "arch": "resnet18",
        "epoch": 200,
    },
    "moco-v3": lambda a: {
        "state_dict": {
            **under("module.base_encoder.", a),
            **under("module.base_encoder.fc.", HEAD),
            **under("module.momentum_encoder.", a),
            **under("module.momentum_encoder.fc.", HEAD),
            **under("module.predictor.", HEAD),
        },
        "arch": "resnet18",
        "epoch": 300,
    },
    "barlow-twins": lambda a: {
        "model": {
            **under("module.backbone.", a),
            **under("module.projector.", HEAD),
            **under("module.bn.", {"running_mean": torch.ones(4)}),
        },
        "epoch": 1000,
    },
    "swav": lambda a: {
        "state_dict": {
            **under("module.", a),
            **under("module.projection_head.", HEAD),
            "module.prototypes.weight": torch.ones(3, 4),
        },
        "epoch": 800,
    },
    "dino": lambda a: {
        "student": {**under("module.backbone.", a), **under("module.head.", HEAD)},
        "teacher": {**under("backbone.", a), **under("head.", HEAD)},
        "dino_loss": {"center": torch.zeros(1, 4)},
        "epoch": 100,
    },
}


@pytest.mark.parametrize("form", OFFICIAL)
def test_the_official_code_of_a_method(tmp_path: Path, form: str) -> None:
    network = build("resnet18")
    file = save(OFFICIAL[form](trunk(network)), tmp_path)
    error, read = difference(file, features(network, *NORMALISATIONS.get(form, IMAGENET)))
    assert read.format == form
    assert error < TOLERANCE


def test_solo_learns_small_stem(tmp_path: Path) -> None:
    """solo-learn changes torchvision's ResNet for small images: a 3x3 convolution, padded by two pixels."""
    network = build("resnet18")
    network.conv1, network.maxpool = STEMS["small-pad2"]
    heads = {**under("projector.", HEAD), **under("classifier.", HEAD)}
    content = {
        "state_dict": {**under("backbone.", trunk(network)), **heads},
        "pytorch-lightning_version": "1.6.4",
        "epoch": 999,
        "global_step": 1000,
    }
    file = save(content, tmp_path, "x.ckpt")
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    error, _ = difference(file, features(network, mean, std), 32, stem="small-pad2", normalisation="cifar10")
    assert error < TOLERANCE
