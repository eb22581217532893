"""Files of official codes that need more than a prefix: Mugs, EsViT, SimMIM, BEiT, and Caffe2's ResNets."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.checkpoint_files import random_state, same_tensors, save
from support.public_formats import HEAD, under
from support.thorough import more
from torch import Tensor

from siamtransfer.checkpoints.normalisation import CAFFE, IMAGENET
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.utils.errors import UserError

State = dict[str, Tensor]


def tensors(name: str, **options: Any) -> State:
    """The names and shapes of timm's network without a classifier, each tensor with one value of its own."""
    with torch.device("meta"):
        shapes = timm.create_model(name, num_classes=0, **options).state_dict()
    return {
        key: torch.tensor(float(number)).expand(tensor.shape)
        for number, (key, tensor) in enumerate(shapes.items())
    }


def as_swin(state: State) -> State:
    moved = {
        re.sub(r"^layers\.(\d)\.down", lambda match: f"layers.{int(match[1]) - 1}.down", name): tensor
        for name, tensor in state.items()
    }
    return moved | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}


def mugs(state: State) -> Any:
    blocks = under("relation_blocks.0.", {"norm1.weight": torch.ones(4)})
    whole = under("backbone.", state | blocks) | under("instance_head.projector.", HEAD)
    whole |= under("local_group_head.projector.", HEAD) | under("group_head.last_layer.", HEAD)
    return {
        "student": under("module.", whole),
        "teacher": whole,
        "student_mem": {"block.queue_q": torch.ones(4, 4)},
        "teacher_mem": {"block.queue_q": torch.ones(4, 4)},
        "group-sup.": {"center": torch.ones(1, 4)},
        "optimizer": {},
        "epoch": 100,
    }


def mugs_alone(state: State) -> Any:
    return {"state_dict": state | under("relation_blocks.0.", {"norm1.weight": torch.ones(4)})}


def esvit(state: State) -> Any:
    whole = as_swin(state) | under("head.mlp.", HEAD) | under("head_dense.mlp.", HEAD)
    whole["head.last_layer.weight_v"] = torch.ones(4)
    return {"student": under("module.", whole), "teacher": whole, "dino_loss": {"center": torch.ones(1, 4)}}


def simmim(state: State) -> Any:
    encoder = as_swin(state) | {"mask_token": torch.ones(1, 1, 96)}
    return {"model": under("encoder.", encoder) | under("decoder.0.", HEAD), "epoch": 800, "lr_scheduler": {}}


def beit(state: State) -> Any:
    shared = state["blocks.0.attn.relative_position_bias_table"]
    names = {name: tensor for name, tensor in state.items() if "relative_position" not in name}
    table = {
        "rel_pos_bias.relative_position_bias_table": shared,
        "rel_pos_bias.relative_position_index": torch.zeros(197, 197, dtype=torch.int64),
    }
    return {"model": names | table | {"mask_token": torch.ones(1, 1, 768)} | under("lm_head.", HEAD)}


@pytest.mark.parametrize(
    ("name", "as_stored", "options", "dropped"),
    [
        ("vit_tiny_patch16_224", mugs, {}, {"projector", "branch student", "blocks of the local group"}),
        more("vit_tiny_patch16_224", mugs_alone, {}, {"blocks of the local group"}),
        ("swin_tiny_patch4_window7_224", esvit, {}, {"projector", "branch student"}),
        more("swin_tiny_patch4_window7_224", simmim, {}, {"mask token", "decoder"}),
        ("beit_base_patch16_224", beit, {"global_pool": "token"}, {"mask token", "head"}),
    ],
)
def test_a_file_of_an_official_code(
    name: str, as_stored: Any, options: dict[str, Any], dropped: set[str], tmp_path: Path
) -> None:
    state = tensors(name, **options)
    if as_stored is beit:
        table = state["blocks.0.attn.relative_position_bias_table"]
        state = {key: table if key.endswith("bias_table") else tensor for key, tensor in state.items()}
    content = as_stored(state)
    read = read_backbone(save(content, tmp_path))
    assert (read.format, read.name) == (as_stored.__name__.removesuffix("_alone"), f"timm:{name}")
    assert set(read.dropped) == dropped
    assert same_tensors(read.state, state)
    assert read.architecture.pool == options.get("global_pool")
    assert read.architecture.norm_eps == (1e-6 if as_stored is esvit else None)
    place = content.get("teacher", content.get("model", content.get("state_dict")))
    place["gate.weight"] = torch.ones(2)
    with pytest.raises(UserError, match=r"gate\.weight|--architecture timm:NAME"):
        read_backbone(save(content, tmp_path))


def as_caffe2(state: State) -> State:
    """A ResNet with merged batch norms in Caffe2: scales and shifts alone, zero biases of convolutions."""
    letters, blobs = {"weight": "s", "bias": "b"}, {}
    for name, tensor in state.items():
        *module, kind = name.split(".")
        if kind not in letters or name.startswith("fc"):
            continue
        norm = tensor.ndim == 1
        if len(module) == 1:
            blobs[f"res_conv1_bn_{letters[kind]}" if norm else "conv1_w"] = tensor
            continue
        if module[2] == "downsample":
            branch = "branch1"
        else:
            branch = f"branch2{'abc'[int(module[2][-1]) - 1]}"
        start = f"res{int(module[0][-1]) + 1}_{module[1]}_{branch}"
        blobs[f"{start}_bn_{letters[kind]}" if norm else f"{start}_w"] = tensor
    return blobs | {"conv1_b": torch.zeros(64), "fc1000_w": torch.ones(5, 4), "fc1000_b": torch.ones(5)}


def expected_of(state: State) -> State:
    expected = {}
    for name, tensor in state.items():
        fixed = {"running_mean": torch.zeros_like, "running_var": torch.ones_like}.get(name.split(".")[-1])
        expected[name] = fixed(tensor) if fixed else tensor
        if name.endswith("num_batches_tracked"):
            expected[name] = torch.zeros((), dtype=torch.int64)
    return expected


@pytest.mark.parametrize(
    ("name", "normalisation", "in_1x1"),
    [("resnet50", CAFFE, True), ("resnext101_32x8d", IMAGENET, False)],
)
def test_caffe2s_resnets_state_what_detectron2s_configurations_do(
    name: str, normalisation: Any, in_1x1: bool, tmp_path: Path
) -> None:
    state = random_state(name, 16 if name != "resnet50" else 64)
    blobs = {key: tensor.numpy() for key, tensor in as_caffe2(state).items()}
    path = tmp_path / "R.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    read = read_backbone(path)
    assert (read.format, read.name, read.normalisation) == ("caffe2", name, normalisation)
    assert (read.reading.channels.value, read.architecture.stride_in_1x1) == ("bgr", in_1x1)
    assert read.dropped == {"classifier": 2}
    expected = expected_of(state)
    expected["conv1.weight"] = state["conv1.weight"].flip(1)  # the network takes RGB afterwards
    assert same_tensors(read.state, expected)
    assert not any("--normalisation" in sentence for sentence in read.reading.assumptions())
    biased = blobs | {"conv1_b": torch.ones(64).numpy()}
    path.write_bytes(pickle.dumps(biased, protocol=2))
    with pytest.raises(UserError, match=r"'conv1_b' is a bias that is not zero"):
        read_backbone(path)
    path.write_bytes(pickle.dumps(blobs | {"res6_0_branch1_w": torch.ones(4).numpy()}, protocol=2))
    with pytest.raises(UserError, match="'res6_0_branch1_w' is none of a ResNet's in Caffe2"):
        read_backbone(path)


def test_a_detector_of_torchvision_has_frozen_norms(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    frozen = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    content = under("backbone.body.", frozen) | {
        "backbone.fpn.inner_blocks.0.0.weight": torch.ones(4, 4, 1, 1),
        "rpn.head.cls_logits.weight": torch.ones(3, 4, 1, 1),
        "roi_heads.box_predictor.cls_score.weight": torch.ones(3, 4),
    }
    read = read_backbone(save(content, tmp_path))
    assert (read.format, read.name, read.dropped) == ("torchvision-detection", "resnet18", {"detector": 3})
    assert all(torch.equal(read.state[key], tensor) for key, tensor in frozen.items())
    assert read.reading.assumptions() == []
    with pytest.raises(UserError, match=r"no rule explains its key 'backbone\.gate\.weight'"):
        read_backbone(save(content | {"backbone.gate.weight": torch.ones(2)}, tmp_path))


def test_a_segmenter_of_torchvision_is_dilated(tmp_path: Path) -> None:
    state = under("backbone.", random_state("resnet18", 8)) | {"classifier.0.weight": torch.ones(4, 4, 3, 3)}
    read = read_backbone(save(state, tmp_path))
    assert (read.format, read.architecture.output_stride) == ("torchvision-segmentation", 8)
    with pytest.raises(UserError, match=r"gate\.weight"):
        read_backbone(save(state | {"gate.weight": torch.ones(2)}, tmp_path))
