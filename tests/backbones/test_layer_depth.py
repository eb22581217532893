"""Layers counted from the stem, against timm's own learning rates by depth."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.layer_depth import layer_count, layer_number, layer_numbers
from siamtransfer.utils.errors import UserError


def on_meta(name, **choices):
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return build_backbone(name, **choices)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "timm:vit_tiny_patch16_224",
        "timm:vit_base_patch14_reg4_dinov2",
        "timm:vit_base_patch16_clip_224",
        "timm:convnext_atto",
        "timm:swin_tiny_patch4_window7_224",
        "timm:efficientnet_b0",
        "timm:rexnet_100",  # a matcher that is a function
        "timm:mixer_s32_224",
    ],
)
def test_layers_are_those_of_timms_rates_by_depth(name):
    backbone = on_meta(name)
    with torch.device("meta"):
        whole = timm.create_model(name.removeprefix("timm:"), num_classes=3)
    names = {parameter: key for key, parameter in whole.named_parameters()}
    scales = {
        names[parameter]: group["lr_scale"]
        for group in param_groups_layer_decay(whole, layer_decay=0.5)
        for parameter in group["params"]
    }
    depth = layer_count(backbone)
    ours = {key: 0.5 ** (depth - number) for key, number in layer_numbers(backbone).items()}
    assert ours == {key: scales[key] for key in ours}
    classifier = whole.pretrained_cfg["classifier"]
    assert scales[f"{classifier}.weight"] == 1 and f"{classifier}.weight" not in ours


@pytest.mark.parametrize(
    ("name", "first", "last", "layers"),
    [
        ("vit_b_16", "encoder.pos_embedding", "encoder.ln.weight", 13),
        ("convnext_tiny", "features.0.0.weight", "features.7.2.block.5.weight", 22),
        ("efficientnet_b0", "features.0.1.weight", "features.8.0.weight", 18),
        ("vgg11_bn", "features.1.weight", "classifier.3.bias", 10),
        ("densenet121", "features.norm0.bias", "features.norm5.weight", 62),
        ("maxvit_t", "stem.0.1.weight", "classifier.3.weight", 13),
        ("regnet_x_400mf", "stem.1.weight", "trunk_output.block4.block4-11.f.c.1.bias", 23),
        ("mnasnet0_5", "layers.1.weight", "layers.15.bias", 20),
        ("swin_t", "features.0.2.bias", "norm.weight", 16),
    ],
)
def test_torchvisions_networks_begin_at_the_stem_and_count_blocks(name, first, last, layers):
    backbone = on_meta(f"torchvision:{name}")
    numbers = layer_numbers(backbone)
    assert layer_count(backbone) == layers
    assert numbers[first] == 0 and numbers[last] == layers - 1
    assert list(numbers) == [key for key, _ in backbone.model.named_parameters()]
    # No layer is without a matrix, and a deeper one never comes first.
    assert sorted(set(numbers.values())) == list(range(layers))
    assert list(numbers.values()) == sorted(numbers.values())


def test_names_with_and_without_the_prefix_of_the_module():
    backbone = on_meta("timm:vit_tiny_patch16_224")
    for name, _ in backbone.named_parameters():
        assert layer_number(name, backbone) == layer_numbers(backbone)[name.removeprefix("model.")]
    assert layer_number("blocks.3.attn.qkv.weight", backbone) == 4
    with pytest.raises(KeyError):
        layer_number("blocks.12.attn.qkv.weight", backbone)


def test_a_network_without_groups_in_timm_is_refused():
    with pytest.raises(UserError, match=r"timm does not say which tensors of timm:pit_ti_224 make a layer"):
        layer_count(on_meta("timm:pit_ti_224"))
