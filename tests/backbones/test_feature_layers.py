"""Which layers features come from, and the folded ResNet that computes them."""

from __future__ import annotations

import pytest
import torch

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.feature_layers import FeatureLayers
from siamtransfer.backbones.fold_batchnorm import fold_batchnorm
from siamtransfer.utils.errors import UserError


def test_stages_of_a_resnet_side_by_side() -> None:
    backbone = build_backbone("resnet18", width=8).eval()
    x = torch.randn(2, 3, 64, 64)
    layers = FeatureLayers(backbone, ["layer2", "layer3+layer4", "output"])
    h = layers(x)
    assert layers.layers == ["layer2", "layer3", "layer4", "output"]
    assert h.shape == (2, 16 + 32 + 64 + 64)
    stages = [stage.mean(dim=(2, 3)) for stage in backbone.stages(x)]
    torch.testing.assert_close(layers.select(h, "layer3+layer4"), torch.cat(stages[2:], dim=1))
    torch.testing.assert_close(layers.select(h, "output"), backbone(x))
    torch.testing.assert_close(layers.select(h, "layer2"), stages[1])


def test_tokens_of_a_vit() -> None:
    backbone = build_backbone("vit_tiny_patch16_224").eval()
    x = torch.randn(2, 3, 224, 224)
    layers = FeatureLayers(backbone, ["last4", "last1+mean", "output"])
    with torch.no_grad():
        h = layers(x)
        tokens = backbone.model.forward_features(x)
        inner = backbone.model.blocks[:9](
            backbone.model.norm_pre(backbone.model._pos_embed(backbone.model.patch_embed(x)))
        )
    assert layers.layers == ["block9", "block10", "block11", "block12", "mean", "output"]
    torch.testing.assert_close(layers.select(h, "output"), tokens[:, 0])
    torch.testing.assert_close(
        layers.select(h, "last1+mean"), torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
    )
    torch.testing.assert_close(layers.select(h, "last4")[:, :192], backbone.model.norm(inner)[:, 0])


@torch.no_grad()
def test_the_class_token_of_a_network_that_gives_the_mean_and_tokens_before_the_norm() -> None:
    """DINOv3's ViTs give the mean of the patches in timm."""
    backbone = build_backbone("timm:vit_small_patch16_dinov3").eval()
    torch.nn.init.uniform_(backbone.model.norm.weight, 0.5, 1.5)
    x = torch.randn(2, 3, 64, 96)
    layers = FeatureLayers(
        backbone, ["class+mean", "class-prenorm", "mean-prenorm", "last1-prenorm", "output"]
    )
    h = layers(x)
    as_token = build_backbone("timm:vit_small_patch16_dinov3", pool="token").eval()
    as_token.load_state_dict(backbone.state_dict())
    expected = torch.cat([as_token(x), backbone(x)], dim=1)
    torch.testing.assert_close(layers.select(h, "class+mean"), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layers.select(h, "output"), backbone(x))
    norm, raw = backbone.model.norm, layers.select(h, "class-prenorm")
    assert not torch.allclose(raw, as_token(x), atol=0.1)
    torch.testing.assert_close(norm(raw), as_token(x), atol=1e-5, rtol=1e-5)
    assert torch.equal(raw, layers.select(h, "last1-prenorm"))
    tokens, _ = backbone.model.forward_intermediates(
        x, indices=1, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )[0]
    torch.testing.assert_close(layers.select(h, "mean-prenorm"), tokens.mean(dim=1))


@torch.no_grad()
def test_registers_are_no_class_token() -> None:
    backbone = build_backbone("timm:vit_wee_patch16_reg1_gap_256").eval()
    x = torch.randn(1, 3, 64, 64)
    expected = backbone.model.forward_features(x)[:, 1:].mean(dim=1)
    torch.testing.assert_close(FeatureLayers(backbone, ["mean"])(x), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="choose from output, mean, with -prenorm behind one"):
        FeatureLayers(backbone, ["class"])


def test_widths_are_measured_without_a_forward_of_ones_own() -> None:
    backbone = build_backbone("resnet18", width=8).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    layers = FeatureLayers(backbone, ["layer1", "layer4"])
    layers.measure(32)
    assert layers.widths == {"layer1": 8, "layer4": 64}
    assert backbone.training
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("name", "selection", "said"),
    [
        ("resnet18", "layer5", "layer1, layer2"),
        ("resnet18", "last2", "output"),
        ("vit_tiny_patch16_224", "last13", "lastN"),
        ("vit_tiny_patch16_224", "block0", "block1"),
        ("convnext_atto", "mean", "output"),
        ("convnext_atto", "class-prenorm", "output"),
        ("resnet18", "layer4-prenorm", "layer1"),
        ("vit_tiny_patch16_224", "output-prenorm", "class, mean"),
    ],
)
def test_no_such_layer(name: str, selection: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        FeatureLayers(build_backbone(name), ["output", selection])


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_folding_changes_nothing_but_rounding(name: str, stem: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, width=16 if name != "resnext50_32x4d" else 64, stem=stem)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    backbone.eval()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    copy, x = fold_batchnorm(backbone).double(), torch.randn(2, 3, 32, 32).double()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in copy.modules())
    for ours, theirs in zip(copy.stages(x), backbone.double().stages(x), strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert all(torch.equal(before[key].double(), t) for key, t in backbone.state_dict().items())
