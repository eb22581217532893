"""The rates and weight decays of a fine-tuning, parameter by parameter.

python -m pytest tests/detection/test_parameter_groups.py
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.detection.parameter_groups import GroupSettings, build_optimizer, parameter_groups
from siamtransfer.detection.stage_trunk import StageTrunk
from siamtransfer.detection.vit_pyramid import VitOptions, build_vit_pyramid
from siamtransfer.utils.errors import UserError


class Detector(nn.Module):
    """A trunk, and a head of one convolution and one norm."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.backbone, self.head = trunk, nn.Sequential(nn.Conv2d(8, 4, 1), nn.GroupNorm(2, 4))


def detector(name: str = "vit_tiny_patch16_224") -> Detector:
    with torch.device("meta"):
        options = VitOptions(channels=8, final_norm=False)
        return Detector(build_vit_pyramid(Architecture(f"timm:{name}"), options))


def settings(**changes: Any) -> GroupSettings:
    return GroupSettings(**{"lr": 1.0, "weight_decay": 0.1, "norm_weight_decay": 0.0, **changes})


def by_name(network: nn.Module, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The group of each parameter; fails where one is in two groups."""
    found: dict[int, dict[str, Any]] = {}
    for group in groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = group
    return {
        name: found[id(parameter)] for name, parameter in network.named_parameters() if id(parameter) in found
    }


def test_rates_of_a_vit_are_those_of_vitdet() -> None:
    """Detectron2's ViTDet gives block n of L the rate d^(L - n), the embeddings d^(L + 1), all else 1."""
    network = detector()
    groups = by_name(network, parameter_groups(network, settings(layer_decay=0.7, lr=2e-4)))
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert groups.keys() == learning
    seen = set()
    for name, group in groups.items():
        block = re.search(r"(?:blocks|relative)\.(\d+)\.", name)
        expected = 0.7 ** (12 - int(block[1])) if block else 1.0
        if re.search(r"pos_embed|patch_embed|cls_token", name):
            expected = 0.7**13
        assert group["lr"] == pytest.approx(2e-4 * expected), name
        assert group["lr_factor"] == pytest.approx(expected), name
        seen.add(round(expected, 9))
    assert len(seen) == 14


def test_weight_decay_spares_norms_and_named_parameters() -> None:
    network = detector()
    groups = by_name(network, parameter_groups(network, settings(no_decay=("pos_embed", "cls_token"))))
    spared = {name for name, group in groups.items() if group["weight_decay"] == 0.0}
    norms = {
        f"{name}.{kind}"
        for name, module in network.named_modules()
        if isinstance(module, nn.LayerNorm | nn.GroupNorm)
        for kind in ("weight", "bias")
    }
    trunk = "backbone.bottom_up.model."
    final = {f"{trunk}norm.weight", f"{trunk}norm.bias"}  # not learned: the map does without
    assert final < norms
    assert spared == norms - final | {f"{trunk}pos_embed", f"{trunk}cls_token"}
    assert groups["backbone.relative.0.height"]["weight_decay"] == 0.1


def test_rms_norms_are_norms() -> None:
    network = detector("test_vit4")
    groups = by_name(network, parameter_groups(network, settings()))
    assert groups["backbone.bottom_up.model.blocks.0.norm1.weight"]["weight_decay"] == 0.0
    assert groups["backbone.bottom_up.model.blocks.0.ls1.gamma"]["weight_decay"] == 0.1


@pytest.mark.parametrize("trunk", [lambda: StageTrunk(Architecture("timm:test_convnext")), "resnet18"])
def test_rates_fall_towards_the_stem_in_other_trunks(trunk: Any) -> None:
    with torch.device("meta"):
        network = Detector(trunk() if callable(trunk) else Architecture(trunk, 16, "imagenet").build())
    groups = by_name(network, parameter_groups(network, settings(layer_decay=0.5)))
    factors = [group["lr_factor"] for name, group in groups.items() if name.startswith("backbone.")]
    assert groups["head.0.weight"]["lr_factor"] == 1.0
    trunk_only = [factor for factor in factors if factor < 1]
    assert max(trunk_only) == 0.5
    assert trunk_only == sorted(trunk_only)
    assert len(set(trunk_only)) > 4


def test_one_rate_makes_the_two_groups_that_states_of_older_runs_hold() -> None:
    network = Detector(Architecture("resnet18", 16, "imagenet").build())
    groups = parameter_groups(network, settings())
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1.0, 0.1), (1.0, 0.0)]


def test_adamw_moves_a_layer_by_its_own_rate() -> None:
    torch.manual_seed(0)
    trunk = build_vit_pyramid(Architecture("timm:test_vit"), VitOptions(channels=8, image_size=32))
    network = Detector(trunk)
    groups = parameter_groups(network, settings(layer_decay=0.5, weight_decay=0.0, lr=0.01))
    optimizer = build_optimizer("AdamW", groups, lr=0.01, momentum=0.9, betas=(0.9, 0.999))
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    sum(level.square().sum() for level in trunk(torch.randn(1, 3, 32, 32)).values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    steps = {name: float((p - before[name]).detach().abs().max()) for name, p in network.named_parameters()}
    # Adam's first step is the rate, whatever the gradient.
    assert steps["backbone.bottom_up.model.blocks.5.mlp.fc1.weight"] == pytest.approx(0.005, rel=0.01)
    assert steps["backbone.bottom_up.model.blocks.0.mlp.fc1.weight"] == pytest.approx(0.01 / 64, rel=0.01)
    assert steps["backbone.bottom_up.model.patch_embed.proj.weight"] == pytest.approx(0.01 / 128, rel=0.01)
    assert steps["backbone.levels.p4.0.weight"] == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_decay": 0.0}, "LAYER_DECAY is 0.0"),
        ({"layer_decay": 1.1}, "LAYER_DECAY is 1.1"),
        ({"no_decay": ("pos_embeds",)}, "names pos_embeds"),
        ({"no_decay": (3,)}, "list of names"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parameter_groups(detector("test_vit"), settings(**changes))


def test_a_trunk_whose_layers_are_not_known_is_refused() -> None:
    with pytest.raises(UserError, match="not counted"):
        parameter_groups(Detector(nn.Conv2d(3, 8, 1)), settings(layer_decay=0.7))


@pytest.mark.parametrize(
    ("name", "betas", "words"),
    [("Adam", (0.9, 0.999), "SGD or AdamW"), ("AdamW", (0.9,), "BETAS"), ("AdamW", (0.9, 1.0), "BETAS")],
)
def test_optimizers_that_there_are_not_are_refused(name: Any, betas: tuple[float, ...], words: str) -> None:
    groups = parameter_groups(detector("test_vit"), settings())
    with pytest.raises(UserError, match=words):
        build_optimizer(name, groups, lr=1.0, momentum=0.9, betas=betas)
