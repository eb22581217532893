"""Networks in their authors' own layout: the tensors are those that timm's own conversions make of them."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.checkpoint_files import random_state, same_tensors, save
from support.public_formats import HEAD, under
from support.thorough import more
from timm.models import beit, convnext, swin_transformer, vision_transformer, xcit
from torch import Tensor

from siamtransfer.checkpoints.layouts import official, openmmlab
from siamtransfer.checkpoints.normalisation import IMAGENET
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.utils.errors import UserError

State = dict[str, Tensor]
CONVNEXT = {
    r"^stem\.": "downsample_layers.0.", r"^stages\.(\d)\.downsample\.": r"downsample_layers.\1.",
    r"^stages\.(\d)\.blocks\.": r"stages.\1.", r"\.conv_dw\.": ".dwconv.", r"\.mlp\.fc(\d)\.": r".pwconv\1.",
    r"\.mlp\.grn\.weight": ".grn.gamma", r"\.mlp\.grn\.bias": ".grn.beta", r"^head\.norm\.": "norm.",
}  # fmt: skip
AIMV2 = {
    r"^blocks\.(\d+)\.norm(\d)\.": r"trunk.blocks.\1.norm_\2.", r"\.fc1_g\.": ".fc1.", r"\.fc1_x\.": ".fc3.",
    r"^blocks\.": "trunk.blocks.", r"^norm\.": "trunk.post_trunk_norm.",
    r"^pos_embed$": "preprocessor.pos_embed", r"^patch_embed\.": "preprocessor.patchifier.",
}  # fmt: skip


@functools.cache
def network(name: str, **options: Any) -> tuple[Any, State]:
    """timm's network without a classifier, and its tensors, none of which is zero or one; not to change."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **options).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.1 * torch.rand_like(tensor)
    return model, model.state_dict()


def renamed(state: State, rules: dict[str, str]) -> State:
    result = {}
    for name, tensor in state.items():
        for old, new in rules.items():
            name = re.sub(old, new, name)
        result[name] = tensor
    return result


def as_convnext(state: State) -> State:
    names = renamed(state, CONVNEXT)
    return {name: tensor.view(1, 1, 1, -1) if ".grn." in name else tensor for name, tensor in names.items()}


def as_sparse(state: State) -> State:
    """As MinkowskiEngine has it: kernels by positions, the width first; biases of two axes; norms inside."""
    sparse = {}
    for name, tensor in as_convnext(state).items():
        if name.startswith("downsample_layers.0."):
            sparse[name] = tensor
        elif tensor.ndim == 4 and name.endswith("weight"):
            kernel = tensor.permute(3, 2, 1, 0).flatten(0, 1)
            sparse[name.replace("weight", "kernel")] = kernel[:, 0] if ".dwconv." in name else kernel
        elif re.search(r"\.(dwconv|[1-3]\.1)\.bias$", name):
            sparse[name] = tensor[None]
        elif ".grn." in name:
            sparse[name] = tensor.flatten()[None]
        else:
            word = "linear" if "pwconv" in name else "ln"
            sparse[re.sub(r"\.(weight|bias)$", rf".{word}.\1", name)] = tensor
    return sparse


def as_swin(state: State) -> State:
    names = {
        re.sub(r"^layers\.(\d)\.down", lambda match: f"layers.{int(match[1]) - 1}.down", name): tensor
        for name, tensor in state.items()
    }
    return names | {
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
    }


def as_xcit(state: State) -> State:
    result = {}
    for name, tensor in state.items():
        block, _, kind = name.partition(".attn.q.")
        if kind and name.startswith("cls_attn_blocks."):
            rest = [state[f"{block}.attn.{letter}.{kind}"] for letter in "kv"]
            result[f"{block}.attn.qkv.{kind}"] = torch.cat([tensor, *rest])
        elif not re.match(r"cls_attn_blocks\.\d+\.attn\.[kv]\.", name):
            result[name.replace("pos_embed.", "pos_embeder.")] = tensor
    return result


def as_beit(state: State) -> State:
    return state | {"blocks.0.attn.relative_position_index": torch.zeros(197, 197, dtype=torch.int64)}


Filter = Callable[[State, Any], State]


@pytest.mark.parametrize(
    ("name", "as_stored", "theirs", "options"),
    [
        ("convnext_atto", as_convnext, convnext.checkpoint_filter_fn, {}),
        more("convnextv2_atto", as_convnext, convnext.checkpoint_filter_fn, {}),
        more("swin_tiny_patch4_window7_224", as_swin, swin_transformer.checkpoint_filter_fn, {}),
        ("xcit_nano_12_p16_224", as_xcit, xcit.checkpoint_filter_fn, {}),
        ("beit_base_patch16_224", as_beit, beit.checkpoint_filter_fn, {"depth": 2}),
        (
            "aimv2_large_patch14_224",
            lambda state: renamed(state, AIMV2),
            vision_transformer._convert_aimv2,
            {"depth": 2},
        ),
    ],
)
def test_a_layout_is_converted_as_timm_does(
    name: str, as_stored: Callable[[State], State], theirs: Filter, options: dict[str, Any], tmp_path: Path
) -> None:
    model, state = network(name, **options)
    stored = as_stored(state)
    assert same_tensors(official.to_timm(stored), state)
    assert same_tensors(theirs(dict(stored), model), state)
    if not options:  # the catalogue has the whole network
        read = read_backbone(save({"model": stored | under("head.", {"weight": torch.ones(5, 5)})}, tmp_path))
        assert (read.format, read.name, read.dropped) == ("official", f"timm:{name}", {"classifier": 1})
        assert same_tensors(read.state, state)
        with pytest.raises(UserError, match=r"gate|architecture timm:NAME"):
            read_backbone(save({"model": stored | {"stages.0.gate.weight": torch.ones(5)}}, tmp_path))


def test_a_shared_table_of_relative_positions_is_that_of_every_block() -> None:
    table = torch.rand(732, 12)
    state = {"blocks.0.norm1.bias": torch.ones(2), "blocks.1.norm1.bias": torch.ones(2)}
    index = {"rel_pos_bias.relative_position_index": torch.zeros(4)}
    result = official.to_timm(state | index | {"rel_pos_bias.relative_position_bias_table": table})
    assert result.keys() == state.keys() | {f"blocks.{n}.attn.relative_position_bias_table" for n in (0, 1)}
    assert torch.equal(result["blocks.1.attn.relative_position_bias_table"], table)


def test_a_sparse_convolution_computes_what_the_dense_one_does() -> None:
    _, state = network("convnextv2_atto")
    sparse = as_sparse(state)
    assert sparse["stages.0.0.dwconv.kernel"].shape == (49, 40)
    assert sparse["downsample_layers.1.1.kernel"].shape == (4, 40, 80)
    assert same_tensors(official.to_timm(sparse), state)
    with pytest.raises(ValueError, match=r"'stages.0.0.dwconv.kernel' of shape \(48, 40\)"):
        official.to_timm(sparse | {"stages.0.0.dwconv.kernel": torch.ones(48, 40)})


def fcmae(state: State) -> Any:
    heads = {"mask_token": torch.zeros(1, 4), "proj.weight": torch.ones(4), "pred.bias": torch.ones(4)}
    return {"model": under("encoder.", as_sparse(state)) | heads | under("decoder.0.", HEAD)}


def dino(state: State) -> Any:
    whole = under("backbone.", as_xcit(state)) | under("head.", HEAD)
    return {"teacher": whole, "student": under("module.", whole), "dino_loss": {"center": torch.ones(1, 4)}}


def ibot(state: State) -> Any:
    swin = as_swin(state) | {"masked_embed": torch.ones(1, 96)}
    whole = under("backbone.", swin) | under("head.", HEAD)
    return {"teacher": whole, "student": under("module.", whole), "ibot_loss": {"center": torch.ones(1, 4)}}


@pytest.mark.parametrize(
    ("as_stored", "name"), [(dino, "xcit_nano_12_p16_224"), (ibot, "swin_tiny_patch4_window7_224")]
)
def test_a_method_around_an_official_layout(as_stored: Any, name: str, tmp_path: Path) -> None:
    _, state = network(name)
    read = read_backbone(save(as_stored(state), tmp_path))
    assert (read.format, read.name, read.branch) == (as_stored.__name__, f"timm:{name}", "teacher")
    assert same_tensors(read.state, state)


def test_networks_for_videos_are_refused(tmp_path: Path) -> None:
    encoder = {
        "module.backbone.patch_embed.proj.weight": torch.ones(8, 3, 2, 16, 16),
        "module.backbone.blocks.0.norm1.weight": torch.ones(8),
    }
    content = {"encoder": encoder, "target_encoder": encoder, "predictor": {"module.x": torch.ones(2)}}
    with pytest.raises(UserError, match=r"V-JEPA.* takes videos, .*'patch_embed\.proj\.weight'"):
        read_backbone(save(content | {"opt": {}}, tmp_path))


def vicregl(state: State) -> Any:
    whole = under("module.backbone.", as_convnext(state)) | under("module.classifier.", HEAD)
    return {
        "model": whole | under("module.projector.", HEAD) | under("module.maps_projector.", HEAD),
        "epoch": 3,
    }


MM_VIT = {
    r"^blocks\.(\d+)\.norm(\d)\.": r"layers.\1.ln\2.", r"\.mlp\.fc1\.": ".ffn.layers.0.0.",
    r"\.mlp\.fc2\.": ".ffn.layers.1.", r"^blocks\.": "layers.", r"^norm\.": "ln1.",
    r"^patch_embed\.proj\.": "patch_embed.projection.",
}  # fmt: skip
MM_SWIN = {
    r"^norm\.": "norm3.", r"^layers\.": "stages.", r"\.attn\.": ".attn.w_msa.",
    r"\.mlp\.fc1\.": ".ffn.layers.0.0.", r"\.mlp\.fc2\.": ".ffn.layers.1.",
    r"^patch_embed\.proj\.": "patch_embed.projection.",
}  # fmt: skip
MM_CONVNEXT = {**CONVNEXT, r"\.conv_dw\.": ".depthwise_conv.", r"\.mlp\.fc(\d)\.": r".pointwise_conv\1.",
    r"^head\.norm\.": "norm3."}  # fmt: skip


class Merging(torch.nn.Module):
    """OpenMMLab's joining of four neighbours, which torch.nn.Unfold collects channel by channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = torch.nn.LayerNorm(4 * channels)
        self.reduction = torch.nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        neighbours = torch.nn.functional.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
        y: Tensor = self.reduction(self.norm(neighbours))
        return y.unflatten(1, (x.shape[1] // 2, x.shape[2] // 2))


def test_neighbours_of_a_swin_transformer_of_openmmlab() -> None:
    torch.manual_seed(0)
    theirs, ours = Merging(6), swin_transformer.PatchMerging(6, 12)
    theirs.norm.load_state_dict({"weight": torch.rand(24), "bias": torch.randn(24)})
    state = {f"stages.0.downsample.{name}": tensor for name, tensor in theirs.state_dict().items()}
    result = openmmlab.swin(state)
    ours.load_state_dict(
        {name.removeprefix("layers.1.downsample."): tensor for name, tensor in result.items()}
    )
    images = torch.randn(2, 8, 8, 6)
    torch.testing.assert_close(ours(images), theirs(images))
    with pytest.raises(ValueError, match=r"'stages\.0\.gate\.weight' is unknown"):
        openmmlab.swin({"stages.0.gate.weight": torch.ones(1)})


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        more("vit_tiny_patch16_224", MM_VIT),
        ("convnext_atto", MM_CONVNEXT),
        ("swin_tiny_patch4_window7_224", MM_SWIN),
    ],
)
def test_networks_of_openmmlab(name: str, rules: dict[str, str], tmp_path: Path) -> None:
    _, state = network(name)
    stored = renamed(state, rules)
    if "swin" in name:
        for key in [key for key in stored if ".downsample." in key]:
            tensor = stored.pop(key)
            moved = re.sub(r"stages\.(\d)", lambda match: f"stages.{int(match[1]) - 1}", key)
            order = tensor.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)
            stored[moved] = order.contiguous()
        stored["stages.0.blocks.0.attn.w_msa.relative_position_index"] = torch.zeros(49, 49)
    for head, form in (("head.fc.weight", "mmselfsup"), ("bbox_head.fc_cls.weight", "openmmlab")):
        content = under("backbone.", stored) | {head: torch.ones(4), "backbone.norm0.weight": torch.ones(4)}
        read = read_backbone(save({"state_dict": content, "meta": {}}, tmp_path))
        assert (read.format, read.name, read.dropped["norms of maps"]) == (form, f"timm:{name}", 1)
        assert same_tensors(read.state, state)
        with pytest.raises(UserError, match=r"gate\.weight"):
            read_backbone(save({"state_dict": content | {"backbone.gate.weight": torch.ones(4)}}, tmp_path))
    assert same_tensors(read_backbone(save(under("backbone.", stored), tmp_path)).state, state)
    assert same_tensors(read_backbone(save({"state_dict": stored}, tmp_path)).state, state)


def test_fcmae_has_a_norm_of_its_own_and_says_so(tmp_path: Path) -> None:
    model, state = network("convnextv2_atto")
    model = copy.deepcopy(model)
    model.head.norm.load_state_dict({"weight": torch.ones(320), "bias": torch.zeros(320)})
    encoder = {name: tensor for name, tensor in state.items() if not name.startswith("head.norm.")}
    images = torch.randn(1, 3, 64, 64)
    for content in (fcmae(encoder), {"model": as_convnext(encoder)}):
        backbone, read = load_backbone(save(content, tmp_path))
        assert (read.format, read.name, read.normalisation) == ("fcmae", "timm:convnextv2_atto", IMAGENET)
        assert "has no last norm" in read.reading.assumptions()[0]
        with torch.no_grad():
            torch.testing.assert_close(backbone(images), model(images))
    finetuned = fcmae(encoder)
    finetuned["model"]["encoder.norm.weight"] = torch.ones(320)
    with pytest.raises(UserError, match=r"'head\.norm\.weight', which comes after pretraining alone"):
        read_backbone(save(finetuned, tmp_path))


def test_vicregls_convnexts_have_no_layer_scale(tmp_path: Path) -> None:
    model = copy.deepcopy(network("convnext_atto")[0])
    scaled = model.state_dict()
    for name, tensor in scaled.items():
        if name.endswith(".gamma"):
            tensor.fill_(1.0)
    state = {name: tensor for name, tensor in scaled.items() if not name.endswith(".gamma")}
    images = torch.randn(1, 3, 64, 64)
    for content in (vicregl(state), as_convnext(state)):
        backbone, read = load_backbone(save(content, tmp_path))
        assert (read.format, read.name) == ("vicregl", "timm:convnext_atto")
        assert "after its norm" in read.reading.assumptions()[0]
        with torch.no_grad():
            torch.testing.assert_close(backbone(images), model(images))
    resnet = random_state("resnet18", 8)
    read = read_backbone(
        save(
            {
                "model": under("backbone.", resnet)
                | under("maps_projector.", HEAD)
                | under("projector.", HEAD)
            },
            tmp_path,
        )
    )
    assert (read.format, read.name) == ("vicregl", "resnet18")
    with pytest.raises(UserError, match=r"no rule explains its key 'gate\.weight'"):
        content = vicregl(state)
        content["model"]["module.gate.weight"] = torch.ones(2)
        read_backbone(save(content, tmp_path))
