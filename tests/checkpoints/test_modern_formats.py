"""Files in the layouts of DINOv2, DINOv3, iBOT, MSN, I-JEPA, MAE and CLIP: their features are timm's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.public_formats import as_open_clip
from support.thorough import more
from torch import Tensor

from siamtransfer.checkpoints.facts import AmbiguousReading
from siamtransfer.checkpoints.layouts import meta
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.utils.errors import UserError

State = dict[str, Tensor]


def network(name: str, **options: Any) -> tuple[Any, State]:
    """timm's network without a classifier, with weights none of which is zero or one, and its tensors."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, dynamic_img_size=True, **options).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.02 * torch.rand_like(tensor)
    return model, model.state_dict()


def below(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def with_registers(state: State) -> State:
    """As DINOv2 has them: the class token has a position of its own."""
    position = torch.full_like(state["cls_token"], 0.25)
    changed = {"register_tokens" if name == "reg_token" else name: tensor for name, tensor in state.items()}
    return changed | {
        "cls_token": state["cls_token"] - position,
        "pos_embed": torch.cat([position, state["pos_embed"]], dim=1),
    }


def as_dinov3(state: State) -> State:
    official = {"rope_embed.periods": torch.ones(16), "mask_token": torch.zeros(1, 384)}
    for name, tensor in state.items():
        block, _, rest = name.rpartition("attn.")
        if rest == "q_bias":
            value = state[f"{block}attn.v_bias"]
            official[f"{block}attn.qkv.bias"] = torch.cat([tensor, torch.ones_like(tensor), value])
            mask = torch.cat([torch.ones_like(tensor), torch.zeros_like(tensor), torch.ones_like(tensor)])
            official[f"{block}attn.qkv.bias_mask"] = mask
        elif rest != "v_bias":
            official[
                re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name).replace("reg_token", "storage_tokens")
            ] = tensor
    return official


def dinov2(state: State) -> Any:
    return state | {"mask_token": torch.zeros(1, 384)}


def dinov2_teacher(state: State) -> Any:
    chunked = {re.sub(r"^blocks\.(\d+)\.", r"blocks.0.\1.", name): tensor for name, tensor in state.items()}
    heads = {"dino_head.mlp.0.weight": torch.zeros(4, 4), "ibot_head.mlp.0.weight": torch.zeros(4, 4)}
    return {"teacher": below("backbone.", dinov2(chunked)) | heads, "iteration": 5}


def ibot(state: State) -> Any:
    whole = below("backbone.", state | {"masked_embed": torch.zeros(1, 192)}) | {
        "head.mlp.0.weight": torch.zeros(4, 4)
    }
    return {
        "student": below("module.", whole),
        "teacher": whole,
        "ibot_loss": {"center": torch.zeros(1, 4)},
        "optimizer": {},
    }


def msn(state: State) -> Any:
    encoder = below("module.", state | {"fc.fc1.weight": torch.zeros(4, 4)})
    return {
        "target_encoder": encoder,
        "encoder": encoder,
        "prototypes": torch.zeros(4, 4),
        "opt": {},
        "epoch": 8,
    }


def mae(state: State) -> Any:
    decoder = {"decoder_embed.weight": torch.zeros(8, 4), "decoder_blocks.0.norm1.weight": torch.zeros(8)}
    return {
        "model": state
        | decoder
        | {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 4, 8)}
    }


@pytest.mark.parametrize(
    ("name", "as_stored", "form"),
    [
        more("vit_small_patch14_dinov2", dinov2, "dinov2"),
        ("vit_small_patch14_dinov2", dinov2_teacher, "dinov2"),
        ("vit_small_patch14_reg4_dinov2", lambda state: dinov2(with_registers(state)), "dinov2"),
        ("vit_tiny_patch16_224", ibot, "ibot"),
        more("vit_tiny_patch16_224", msn, "msn"),
        ("vit_tiny_patch16_224", mae, "mae"),
        more("vit_medium_patch32_clip_224", as_open_clip, "open-clip"),
        (
            "vit_medium_patch32_clip_224",
            lambda state: (
                below("visual.", as_open_clip(state))
                | {
                    "visual.proj": torch.zeros(4, 4),
                    "logit_scale": torch.ones(()),
                    "token_embedding.weight": torch.zeros(4, 4),
                }
            ),
            "open-clip",
        ),
    ],
)
def test_a_file_of_an_official_code(
    name: str, as_stored: Callable[[State], Any], form: str, tmp_path: Path
) -> None:
    model, state = network(name)
    torch.save(as_stored(state), tmp_path / "file.pth")
    as_timm = ReadingOptions(positions="antialiased")  # other sizes as their authors: test_positions.py
    backbone, read = load_backbone(tmp_path / "file.pth", options=as_timm)
    assert (read.format, read.name) == (form, f"timm:{name}")
    side = 112 if "patch14" in name else 224
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), model(images), atol=1e-5, rtol=1e-5)


def test_dinov3s_own_file_gives_the_class_token(tmp_path: Path) -> None:
    model, state = network("vit_small_patch16_dinov3_qkvb", global_pool="token")
    torch.save(as_dinov3(state), tmp_path / "file.pth")
    backbone, read = load_backbone(tmp_path / "file.pth")
    assert (read.format, read.name, read.architecture.pool) == (
        "dinov3", "timm:vit_small_patch16_dinov3_qkvb", "token"
    )  # fmt: skip
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(backbone(images), model(images))
    unmasked = {name: tensor for name, tensor in as_dinov3(state).items() if not name.endswith("bias_mask")}
    torch.save(unmasked, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="has a bias of keys"):
        meta.dinov3(unmasked)
    with pytest.raises(UserError, match="looks like"):
        read_backbone(tmp_path / "other.pth")


def test_ijepas_networks_have_no_class_token(tmp_path: Path) -> None:
    _, state = network("vit_base_patch16_gap_224")
    content = {"encoder": below("module.", state), "target_encoder": below("module.", state)}
    torch.save(
        {**content, "predictor": {"module.mask_token": torch.zeros(1, 1, 4)}, "opt": {}},
        tmp_path / "file.pth",
    )
    read = read_backbone(tmp_path / "file.pth")
    assert (read.format, read.name, read.branch) == ("ijepa", "timm:vit_base_patch16_gap_224", "target")


def test_a_finetuned_mae_gives_the_mean_of_the_patches(tmp_path: Path) -> None:
    model, state = network("vit_tiny_patch16_224", global_pool="avg")
    assert "fc_norm.weight" in state
    torch.save(
        {"model": state | {"head.weight": torch.zeros(5, 192), "head.bias": torch.zeros(5)}},
        tmp_path / "file.pth",
    )
    backbone, read = load_backbone(tmp_path / "file.pth")
    assert read.architecture.pool == "avg"
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(backbone(images), model(images))


def test_a_clip_without_its_activation_is_refused_until_it_is_named(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = timm.create_model("vit_base_patch32_clip_224", num_classes=0).state_dict()
    state = {name: torch.zeros(tensor.shape) for name, tensor in shapes.items()}
    torch.save(as_open_clip(state), tmp_path / "file.pth")
    with pytest.raises(AmbiguousReading, match="clip_quickgelu_224"):
        read_backbone(tmp_path / "file.pth")
    quick = "timm:vit_base_patch32_clip_quickgelu_224"
    assert read_backbone(tmp_path / "file.pth", options=ReadingOptions(architecture=quick)).name == quick
