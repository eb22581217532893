"""Dense features: sizes, agreement with pooled features of the same layers, tokens that have no place."""

from __future__ import annotations

import pytest
import torch

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.feature_layers import FeatureLayers
from siamtransfer.backbones.feature_maps import FeatureMaps, fixed_size, map_layers
from siamtransfer.utils.errors import UserError


def test_the_mean_over_a_resnets_map_is_its_pooled_feature() -> None:
    backbone = build_backbone("resnet18", width=8).eval()
    x = torch.randn(2, 3, 64, 96)
    for layer in ("output", "layer1", "layer2", "layer3", "layer4"):
        pooled = FeatureLayers(backbone, [layer])(x)
        assert torch.equal(FeatureMaps(backbone, layer)(x).mean(dim=(2, 3)), pooled)


def test_several_layers_stand_side_by_side_at_the_largest_size() -> None:
    backbone = build_backbone("resnet18", width=8).eval()
    x = torch.randn(1, 3, 64, 96)
    both = FeatureMaps(backbone, "layer4+layer2")
    assert both.layers == ["layer4", "layer2"]
    joined = both(x)
    assert joined.shape == (1, 64 + 16, 8, 12)
    assert torch.equal(joined[:, 64:], FeatureMaps(backbone, "layer2")(x))


@pytest.mark.parametrize(
    ("name", "side", "grid"),
    [("timm:vit_tiny_patch16_224", 16, (2, 3)), ("timm:vit_small_patch14_reg4_dinov2", 14, (2, 3))],
)
def test_a_vits_map_holds_its_patch_tokens_alone(name: str, side: int, grid: tuple[int, int]) -> None:
    backbone = build_backbone(name).eval()
    x = torch.randn(1, 3, grid[0] * side, grid[1] * side)
    maps = FeatureMaps(backbone)
    assert maps.multiple == side
    with torch.inference_mode():
        features = maps(x)
        tokens = backbone.model.forward_features(x)[:, backbone.model.num_prefix_tokens :]
    assert features.shape[2:] == grid
    assert torch.allclose(features.flatten(2).transpose(1, 2), tokens, atol=1e-6)


def test_last_blocks_are_in_their_order() -> None:
    backbone = build_backbone("timm:vit_tiny_patch16_224").eval()
    x = torch.randn(1, 3, 32, 32)
    last = FeatureMaps(backbone, "last2")
    assert last.layers == ["block11", "block12"]
    with torch.inference_mode():
        apart = [FeatureMaps(backbone, layer)(x) for layer in ("block11", "block12")]
        assert torch.equal(last(x), torch.cat(apart, dim=1))
        assert torch.equal(FeatureMaps(backbone, "block12+block11")(x), torch.cat(apart[::-1], dim=1))


def test_the_class_token_of_the_same_block_stands_beside_every_patch() -> None:
    backbone = build_backbone("timm:test_vit").eval()
    x = torch.randn(2, 3, 160, 160)
    layers = "block1+block6"
    with torch.inference_mode():
        plain, joined = (FeatureMaps(backbone, layers, class_token=token)(x) for token in (False, True))
        tokens = FeatureLayers(backbone, [layers])(x).chunk(2, dim=1)
    dim = plain.shape[1] // 2
    for number, (found, expected) in enumerate(
        zip(joined.chunk(2, dim=1), plain.chunk(2, dim=1), strict=True)
    ):
        assert torch.allclose(found[:, :dim], expected, atol=1e-6)
        spread = tokens[number][:, :, None, None].expand_as(expected)
        assert torch.allclose(found[:, dim:], spread, atol=1e-6)
    with pytest.raises(UserError, match="resnet18 has no class token"):
        FeatureMaps(build_backbone("resnet18", width=8), class_token=True)


def test_an_unknown_layer_names_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"no map of a layer 'layer5'; choose from output, layer1"):
        FeatureMaps(build_backbone("resnet18", width=8), "layer5")
    with pytest.raises(UserError, match=r"'block13'; choose from output, block1, .*block12, lastN"):
        FeatureMaps(build_backbone("timm:vit_tiny_patch16_224"), "block13")


def test_networks_of_one_size_say_so() -> None:
    assert fixed_size(build_backbone("timm:cait_xxs24_224")) == (224, 224)
    assert fixed_size(build_backbone("timm:vit_tiny_patch16_224")) is None
    assert map_layers(build_backbone("timm:resnet18")) == ["output"]
