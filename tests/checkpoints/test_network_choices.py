"""Networks that were built otherwise than their names say: timm's config.json, and arguments of train.py."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf

from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.utils.errors import UserError


def built(name: str, **choices: Any) -> Any:
    """timm's network in eval mode, with positions that matter where it has some."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **choices).eval()
    if getattr(model, "pos_embed", None) is not None:
        torch.nn.init.normal_(model.pos_embed)
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "choices", "read_as"),
    [
        ("test_vit", {"global_pool": "avg"}, {"pool": "avg"}),
        ("test_vit", {"img_size": 96, "num_heads": 4}, {"image_size": 96, "heads": 4}),
        ("test_vit", {"act_layer": "quick_gelu"}, {"activation": "quick_gelu"}),
        ("test_convnext", {"global_pool": "max"}, {"pool": "max"}),
        ("test_convnext", {"global_pool": "avg", "drop_path_rate": 0.1}, {}),
        ("resnet18", {"global_pool": "avgmax"}, {"pool": "avgmax"}),
        ("test_resnet", {"global_pool": "catavgmax"}, {"pool": "catavgmax"}),
    ],
)
def test_a_folder_of_timm(
    name: str, choices: dict[str, Any], read_as: dict[str, Any], tmp_path: Path
) -> None:
    model = built(name, **choices)
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    if "model_args" not in json.loads((tmp_path / "config.json").read_text()):
        pytest.skip("timm before 1.0.31 states no choices")
    backbone, read = load_backbone(tmp_path)
    assert {key: getattr(read.architecture, key) for key in read_as} == read_as
    side = choices.get("img_size", 160)
    images = torch.randn(2, 3, side, side)
    expected = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(backbone(images), expected, atol=1e-6, rtol=1e-5)
    assert backbone.dim == expected.shape[1]


def trained(model: Any, **arguments: Any) -> dict[str, Any]:
    """What timm's train.py saves."""
    settings = {"model": "test_convnext", "gp": None, "in_chans": None, "model_kwargs": {}, **arguments}
    return {
        "epoch": 1,
        "arch": "test_convnext",
        "state_dict": model.state_dict(),
        "args": Namespace(**settings),
        "version": 2,
    }


@torch.no_grad()
def test_the_arguments_of_a_training(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 160, 160)
    model = built("test_convnext", global_pool="max")
    expected = model.forward_head(model.forward_features(images), pre_logits=True)
    for arguments in ({"gp": "max"}, {"model_kwargs": {"global_pool": "max"}}):
        torch.save(trained(model, **arguments), tmp_path / "last.pth.tar")
        backbone, read = load_backbone(tmp_path / "last.pth.tar")
        assert read.architecture.pool == "max"
        torch.testing.assert_close(backbone(images), expected)
    torch.save(trained(model), tmp_path / "last.pth.tar")
    assert read_backbone(tmp_path / "last.pth.tar").architecture.pool is None


def test_what_is_not_understood_is_refused(tmp_path: Path) -> None:
    model = built("test_convnext")
    for given, message in (
        (
            {"norm_layer": "batchnorm2d"},
            "was built with norm_layer='batchnorm2d', as model_args in config.json",
        ),
        ({"img_size": [96, 64]}, r"was built with img_size=\[96, 64\], .* which is not understood"),
        ({"global_pool": 3}, "global_pool=3, .* which is not understood"),
    ):
        save_for_hf(model, str(tmp_path), safe_serialization=True)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": given}))
        with pytest.raises(UserError, match=message):
            read_backbone(tmp_path)
    torch.save(trained(model, model_kwargs={"depths": [1, 1, 1, 1]}), tmp_path / "last.pth.tar")
    with pytest.raises(UserError, match=r"was built with depths=.*, as args in the file says"):
        read_backbone(tmp_path / "last.pth.tar")
