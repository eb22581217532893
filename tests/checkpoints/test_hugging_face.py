"""Folders of Hugging Face's transformers: what is read gives transformers' own features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.thorough import more
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.identify import Identified
from siamtransfer.checkpoints.containers import read_content
from siamtransfer.checkpoints.facts import AmbiguousReading
from siamtransfer.checkpoints.layouts import hugging_face as layouts
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.checkpoints.reading import Fact
from siamtransfer.utils.errors import UserError

transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
CLIP = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "patch_size": 32}
DINOV2 = {"hidden_size": 384, "num_attention_heads": 6, "patch_size": 14, "image_size": 518}


def class_token(output: Any) -> Tensor:
    token: Tensor = output.last_hidden_state[:, 0]
    return token


def pooled(output: Any) -> Tensor:
    feature: Tensor = output.pooler_output
    return feature.flatten(1)


def write(name: str, folder: Path, model: str = "Model", **options: Any) -> Any:
    """A model of transformers whose scales and shifts are none of them zero or one, and its folder."""
    torch.manual_seed(0)
    settings = f"{name}VisionConfig" if model == "VisionModel" else f"{name}Config"
    config = getattr(transformers, settings)(**options)
    network = getattr(transformers, f"{name}{model}")(config).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor += 0.1 * torch.rand_like(tensor)
    network.save_pretrained(folder)
    return network


@pytest.mark.parametrize(
    ("family", "options", "feature", "name"),
    [
        ("ViT", TINY, class_token, "timm:vit_tiny_patch16_224"),
        more("ViTMAE", {**TINY, "mask_ratio": 0.0}, class_token, "timm:vit_tiny_patch16_224"),
        ("DeiT", TINY, None, "timm:deit_tiny_distilled_patch16_224"),
        more("Dinov2WithRegisters", DINOV2, class_token, "timm:vit_small_patch14_reg4_dinov2"),
        ("DINOv3ViT", {**SMALL, "num_register_tokens": 4}, class_token, "timm:vit_small_patch16_dinov3_qkvb"),
        more("DINOv3ConvNext", {}, pooled, "timm:convnext_tiny"),
        ("ConvNext", {}, pooled, "timm:convnext_tiny"),
        more("Swin", {}, pooled, "timm:swin_tiny_patch4_window7_224"),
        ("ResNet", {}, pooled, "resnet50"),
    ],
)
def test_a_folder_of_a_family(
    family: str, options: dict[str, Any], feature: Any, name: str, tmp_path: Path
) -> None:
    network = write(family, tmp_path, **options)
    backbone, read = load_backbone(tmp_path)
    assert (read.format, read.name) == ("huggingface", name)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        output = network(images)
        if feature is None:  # timm takes the mean of the class token and the distillation token
            expected = output.last_hidden_state[:, :2].mean(dim=1)
        else:
            expected = feature(output)
        torch.testing.assert_close(backbone(images), expected, atol=3e-5, rtol=1e-5)


ATTO = {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}


def test_i_jepa_has_the_tensors_and_features_of_timms_network(tmp_path: Path) -> None:
    """The networks that Meta published are too large for a test, and timm has no small one: what is read of a
    small one's file goes into timm's class."""
    network = write("IJepa", tmp_path, **TINY, num_hidden_layers=2, image_size=32)
    tensors = read_content(tmp_path / "model.safetensors")
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    gap = {"class_token": False, "global_pool": "avg", "fc_norm": False, "num_classes": 0}
    theirs = VisionTransformer(img_size=32, embed_dim=192, depth=2, num_heads=3, **gap).eval()
    theirs.load_state_dict(layouts.vit(own))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(images).last_hidden_state.mean(dim=1)
        torch.testing.assert_close(theirs(images), expected, atol=3e-5, rtol=1e-5)
    with pytest.raises(
        UserError, match=r"looks like transformers' I-JEPA, but a ViT of 2 blocks of width 192"
    ):
        read_backbone(tmp_path)


def test_a_state_dict_in_memory_has_the_names_of_version_5(tmp_path: Path) -> None:
    network = write("ViT", tmp_path, **TINY)
    torch.save(network.state_dict(), tmp_path / "memory.pth")
    assert read_backbone(tmp_path / "memory.pth").digest == read_backbone(tmp_path).digest


def test_a_small_convnext_v2_has_convolutions_in_timm(tmp_path: Path) -> None:
    network = write("ConvNextV2", tmp_path, **ATTO)
    backbone, read = load_backbone(tmp_path)
    assert read.name == "timm:convnextv2_atto"
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), pooled(network(images)), atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "options", "setting"),
    [
        ("ViT", {**TINY, "hidden_act": "relu"}, "hidden_act='relu'"),
        ("ConvNextV2", {**ATTO, "hidden_act": "silu"}, "hidden_act='silu'"),
        ("ResNet", {"depths": [2, 2, 2, 2], "downsample_in_first_stage": True}, "downsample_in_first_stage"),
        ("DINOv3ViT", {**SMALL, "num_register_tokens": 4, "rope_theta": 50.0}, "rope_theta=50.0"),
    ],
)
def test_a_setting_that_tensors_do_not_show_is_refused(
    family: str, options: dict[str, Any], setting: str, tmp_path: Path
) -> None:
    write(family, tmp_path, **options)
    with pytest.raises(UserError, match=rf"was built with {setting}.*, as config.json beside it says"):
        read_backbone(tmp_path)


def test_the_heads_of_both_towers_network_are_those_of_vision_config(tmp_path: Path) -> None:
    write(
        "CLIP",
        tmp_path,
        text_config={"num_hidden_layers": 1, "vocab_size": 64},
        vision_config={**CLIP, "num_attention_heads": 4, "hidden_act": "gelu"},
    )
    read = read_backbone(tmp_path)
    assert read.reading.heads == Fact(4, "config.json beside the file")


@pytest.mark.parametrize(
    ("family", "options", "name"),
    [
        ("CLIP", {**CLIP, "hidden_act": "gelu"}, "timm:vit_medium_patch32_clip_224"),
        more("Siglip", {}, "timm:vit_base_patch16_siglip_224"),
    ],
)
def test_vision_towers(family: str, options: dict[str, Any], name: str, tmp_path: Path) -> None:
    network = write(family, tmp_path, "VisionModel", **options)
    backbone, read = load_backbone(tmp_path)
    assert read.name == name
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), pooled(network(images)), atol=1e-5, rtol=1e-5)


def test_a_models_head_is_left_out_by_name(tmp_path: Path) -> None:
    write("ViT", tmp_path, "ForImageClassification", **TINY)
    read = read_backbone(tmp_path)
    assert read.dropped == {"classifier": 2}
    assert read.reading.heads == Fact(3, "config.json beside the file")
    assert read.architecture.norm_eps == 1e-12
    write("ViTMAE", tmp_path / "mae", "ForPreTraining", **TINY, decoder_num_hidden_layers=1)
    assert set(read_backbone(tmp_path / "mae").dropped) == {"decoder"}


def test_another_network_of_that_layout_is_refused(tmp_path: Path) -> None:
    write("ViT", tmp_path, hidden_size=64, num_attention_heads=2, intermediate_size=64, num_hidden_layers=2)
    with pytest.raises(UserError, match=r"a ViT of 2 blocks of width 64 .* is none of timm's plain ones"):
        read_backbone(tmp_path)


def test_the_activation_in_config_json_decides_between_clips(tmp_path: Path) -> None:
    from siamtransfer.checkpoints import read_public
    from siamtransfer.checkpoints.side_files import settings_beside

    plain, quick = (f"timm:vit_base_patch32_clip_{word}224" for word in ("", "quickgelu_"))
    clip = Identified(Architecture(plain), others=(quick,), usual=False)
    for activation, expected in (("gelu", plain), ("quick_gelu", quick)):
        config = {"model_type": "clip", "vision_config": {"hidden_act": activation}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        settings = settings_beside(tmp_path / "model.safetensors")
        decided = read_public._as_configured(clip, settings)
        assert (decided.architecture.name, decided.others) == (expected, ())
    (tmp_path / "config.json").unlink()
    with pytest.raises(AmbiguousReading):
        read_public._refuse_look_alikes(
            read_public._as_configured(clip, settings_beside(tmp_path / "model.safetensors"))
        )
