"""The class token's attention: equal to what the fused kernel used, and right where it is known."""

from __future__ import annotations

import math

import pytest
import torch

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.attention_maps import ClassAttention, record_attention, why_no_attention
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.timm import TimmBackbone
from siamtransfer.utils.errors import UserError


def small_vit(registers: int = 0) -> Backbone:
    """A ViT of one block and two heads of 8 channels for images of 32 pixels, with patches of 8."""
    from timm.models.vision_transformer import VisionTransformer

    backbone = TimmBackbone("timm:test_vit")
    backbone.name = "small"
    backbone.model = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=16,
        depth=1,
        num_heads=2,
        num_classes=0,
        reg_tokens=registers,
        dynamic_img_size=True,
    )
    return backbone.eval()


@pytest.mark.parametrize(
    "name",
    [
        "timm:vit_tiny_patch16_224",
        "timm:vit_small_patch14_reg4_dinov2",  # registers
        "timm:vit_small_patch16_dinov3",  # rotary positions, registers
        "timm:deit_tiny_distilled_patch16_224",  # a second class token
    ],
)
def test_weights_times_values_are_the_kernels_output(name: str) -> None:
    backbone = build_backbone(name).eval()
    side = ClassAttention(backbone).multiple
    x = torch.randn(2, 3, 2 * side, 3 * side)
    with torch.inference_mode(), record_attention(backbone.model.blocks[-1].attn) as calls:
        backbone(x)
        (call,) = calls
        weights = call.weights()
        maps = ClassAttention(backbone)(x)
    assert torch.allclose(weights @ call.value, call.output, atol=1e-5)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(()), atol=1e-5)
    patches = weights[:, :, 0, backbone.model.num_prefix_tokens :]
    assert torch.allclose(maps.flatten(2), patches, atol=1e-6)


def test_the_slow_attention_of_timm_gives_the_same_weights() -> None:
    backbone = build_backbone("timm:vit_tiny_patch16_224").eval()
    x = torch.randn(1, 3, 32, 48)
    attention = backbone.model.blocks[-1].attn
    seen = []
    with torch.inference_mode():
        expected = ClassAttention(backbone)(x)
        attention.fused_attn = False
        attention.attn_drop.register_forward_hook(lambda *call: seen.append(call[1][0]))
        backbone(x)
        assert torch.allclose(seen[0][:, :, 0, 1:].reshape(expected.shape), expected, atol=1e-6)
        ClassAttention(backbone)(x)
    assert attention.fused_attn is False
    assert len(seen) == 1


@pytest.mark.parametrize("registers", [0, 3])
def test_a_head_made_by_hand_attends_as_it_was_made(registers: int) -> None:
    """Head 1 scores every token alike; head 2 scores a patch by its brightness."""
    backbone = small_vit(registers)
    model = backbone.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.patch_embed.proj.weight[0] = 1 / (3 * 8 * 8)  # channel 0 of a token is the patch's mean
        model.blocks[0].norm1 = torch.nn.Identity()
        qkv = model.blocks[0].attn.qkv
        qkv.bias[8] = math.sqrt(8)  # the first channel of head 2's query, for every token; undoes the scale
        qkv.weight[16 + 8, 0] = 1  # the first channel of head 2's key is channel 0 of the token
    brightness = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.5, -1.0]])
    x = brightness.repeat_interleave(8, 0).repeat_interleave(8, 1).expand(1, 3, 16, 24)
    with torch.inference_mode():
        maps = ClassAttention(backbone)(x)
    prefix = 1 + registers  # tokens of zeros, whose score is 0
    assert torch.allclose(maps[0, 0], torch.full((2, 3), 1 / (6 + prefix)))
    expected = brightness.exp() / (brightness.exp().sum() + prefix)
    assert torch.allclose(maps[0, 1], expected, atol=1e-6)


def test_a_block_is_chosen_by_its_number() -> None:
    backbone = build_backbone("timm:vit_tiny_patch16_224").eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        last = ClassAttention(backbone)(x)
        assert torch.equal(ClassAttention(backbone, 12)(x), last)
        assert not torch.equal(ClassAttention(backbone, 11)(x), last)
    with pytest.raises(UserError, match="has the blocks 1 to 12, and no block 13"):
        ClassAttention(backbone, 13)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("resnet18", "is no ViT"),
        ("timm:convnext_atto", "is no ViT"),
        ("timm:vit_medium_patch16_gap_240", "has no class token"),
    ],
)
def test_networks_without_a_class_token_say_so(name: str, why: str) -> None:
    backbone = build_backbone(name)
    assert why in (why_no_attention(backbone) or "")
    with pytest.raises(UserError, match=why):
        ClassAttention(backbone)


def test_another_kind_of_attention_is_refused() -> None:
    backbone = build_backbone("timm:xcit_nano_12_p16_224").eval()  # over channels
    with pytest.raises(UserError, match="no softmax over its tokens"), torch.inference_mode():
        ClassAttention(backbone)(torch.randn(1, 3, 224, 224))
