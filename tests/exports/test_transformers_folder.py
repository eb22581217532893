"""Folders of transformers: AutoModel builds its own network, which gives timm's features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from siamtransfer.checkpoints.layouts import hugging_face as layouts
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.exports import transformers_folder
from siamtransfer.exports.transformers_config import Family
from siamtransfer.programs import export
from siamtransfer.utils.errors import UserError

transformers = pytest.importorskip("transformers")
HUB = ["--to", "huggingface", "--layout", "transformers"]


def trained(name: str, folder: Path, **options: Any) -> Any:
    """timm's network with weights none of which is zero or one, and its folder as timm's users have it."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0, **options).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.05 * torch.randn_like(tensor).abs()
    torch.save(network.state_dict(), folder / "in.pth")
    return network


def test_a_vit(tmp_path: Path) -> None:
    network = trained("test_vit", tmp_path)
    out = tmp_path / "out"
    record = export.main([str(tmp_path / "in.pth"), str(out), "--architecture", "timm:test_vit", *HUB])
    model = transformers.AutoModel.from_pretrained(out, add_pooling_layer=False).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    pixels = torch.randint(0, 256, (3, 200, 240), dtype=torch.uint8)
    inputs = processor(pixels, return_tensors="pt")["pixel_values"]
    assert inputs.shape == (1, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(
            model(inputs).last_hidden_state[:, 0], network(inputs), atol=2e-5, rtol=1e-5
        )
    assert record["protocol"]["layout"] == "transformers"
    again = read_backbone(out)
    assert (again.format, again.name) == ("huggingface", "timm:test_vit")


def test_a_narrow_resnet_with_its_stride_in_the_1x1_convolutions(tmp_path: Path) -> None:
    from support.checkpoint_files import random_state

    from siamtransfer.backbones.architecture import Architecture

    state = random_state("resnet50", 8)
    torch.save(state, tmp_path / "in.pth")
    out = tmp_path / "out"
    export.main([str(tmp_path / "in.pth"), str(out), "--stride-in-1x1", "--size", "64", *HUB])
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["downsample_in_bottleneck"]) == ("resnet", True)
    expected = Architecture("resnet50", 8, "imagenet", stride_in_1x1=True).build().eval()
    expected.load_state_dict(state)
    model = transformers.AutoModel.from_pretrained(out).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x).pooler_output.flatten(1), expected(x), atol=1e-4, rtol=1e-4)
    assert read_backbone(out).architecture.stride_in_1x1


@pytest.mark.parametrize(
    ("family", "options", "name", "timms", "layout"),
    [
        (
            "Dinov2WithRegisters",
            {"patch_size": 14, "image_size": 56, "hidden_size": 384, "num_hidden_layers": 2},
            "vit_small_patch14_reg4_dinov2",
            {"depth": 2, "img_size": 56},
            layouts.vit,
        ),
        (
            "Swin",
            {"embed_dim": 24, "depths": [1, 2, 1]},
            "swin_tiny_patch4_window7_224",
            {"embed_dim": 24, "depths": (1, 2, 1)},
            layouts.swin,
        ),
        (
            "ConvNextV2",
            {"hidden_sizes": [96, 16, 16, 8], "depths": [1, 2, 1, 1]},
            "convnextv2_tiny",
            {"dims": (96, 16, 16, 8), "depths": (1, 2, 1, 1)},
            layouts.convnext,
        ),
    ],
)
def test_the_layouts_backwards(
    family: str, options: dict[str, Any], name: str, timms: dict[str, Any], layout: Any
) -> None:
    """Every tensor of transformers gets its value back after the reader's layout took it away."""
    config = getattr(transformers, f"{family}Config")(**options)
    shapes = timm.create_model(name, num_classes=0, **timms).state_dict()
    state = {key: torch.randn(tensor.shape) for key, tensor in shapes.items()}
    names = file_shapes(family, config)
    found = transformers_folder.tensors_of(state, names, Family(family, config, layout, "token"))
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == names
    again = layout({key: tensor for key, tensor in found.items() if "mask_token" not in key})
    assert all(torch.equal(again[key], state[key]) for key in state)
    assert sum(int(not tensor.any()) for tensor in found.values()) <= 1  # the mask token


def file_shapes(family: str, config: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a file of transformers."""
    from transformers.core_model_loading import revert_weight_conversion

    network = getattr(transformers, f"{family}Model")(config)
    state = revert_weight_conversion(network, network.state_dict())
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("random:resnet18:width=8:stem=small", "no place for the stem small"),
        ("random:timm:test_convnext", r"an epsilon of 1e-05, and theirs 1e-06"),
        ("random:timm:test_resnet", "no network of theirs: transformers has ResNet, ViT"),
        ("random:timm:convnext_tiny_hnf", "its last norm comes before the mean of the map"),
        ("random:timm:convnext_atto_ols", "its first layers are not those of ConvNeXt"),
    ],
)
def test_networks_that_transformers_has_not_are_refused(source: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        export.main([source, str(tmp_path / "out"), *HUB])
    assert list(tmp_path.iterdir()) == []


def test_another_size_than_that_of_the_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has positions for 160 pixels, and images have 96"):
        export.main(["random:timm:test_vit", str(tmp_path / "out"), "--size", "96", *HUB])
