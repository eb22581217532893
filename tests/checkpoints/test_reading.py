"""What tensors do not say: a file computes what its original computes, is refused, or says what it assumes.

The originals are torchvision's networks, changed as other code bases change them, and a ViT of timm.
"""

from __future__ import annotations

import copy
import functools
import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from support.checkpoint_files import own_checkpoint, random_state, same_tensors, save
from support.originals import TOLERANCE, as_trained, difference, normalised, sharpened
from support.public_formats import HEAD, under
from support.thorough import more
from torch import Tensor, nn

from siamtransfer.backbones.names import STEMS
from siamtransfer.checkpoints.detectron2_keys import to_detectron2
from siamtransfer.checkpoints.facts import AmbiguousReading
from siamtransfer.checkpoints.normalisation import (
    CAFFE,
    CIFAR10,
    CIFAR10_LOOSE,
    HALF,
    IMAGENET,
    NAMES,
    NONE,
    Normalisation,
    parse_normalisation,
)
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import digest_of, load_backbone, read_backbone
from siamtransfer.utils.errors import UserError

CAFFE_CONFIG = """
model = dict(type='FasterRCNN', backbone=dict(type='ResNet', depth=50, style='pytorch', frozen_stages=1))
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
data = dict(samples_per_gpu=2, train=dict(pipeline=train_pipeline + [dict(type='x')]))
model = dict(backbone=dict(norm_cfg=dict(requires_grad=False), style='caffe'))
img_norm_cfg = dict(mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
"""
DILATED_CONFIG = """
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(type='ResNet', strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True))
"""


def resnet(name: str = "resnet18", **choices: Any) -> Any:
    return copy.deepcopy(_built(name)) if not choices else _build(name, **choices)


def _build(name: str, **choices: Any) -> Any:
    torch.manual_seed(0)
    return as_trained(torchvision.models.get_model(name, weights=None, **choices))


_built = functools.cache(_build)  # random weights take longer than a copy


def trunk(network: nn.Module) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in network.state_dict().items() if not key.startswith("fc.")}


class Original:
    """What a network computes of RGB pixels in [0, 1] before its classifier."""

    def __init__(self, network: Any, normalisation: Normalisation = IMAGENET, *, bgr: bool = False):
        self.network, self.normalisation, self.bgr = network, normalisation, bgr
        network.fc = nn.Identity()

    def __call__(self, images: Tensor) -> Tensor:
        x = normalised(images, *self.normalisation)
        return self.network(x.flip(1) if self.bgr else x)


def msra() -> tuple[Any, dict[str, Tensor]]:
    """MSRA's form of ResNet-50, as Detectron2 and "caffe" style build it, and its tensors."""
    network = resnet("resnet50")
    for stage in (network.layer2, network.layer3, network.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return Original(network, CAFFE, bgr=True), trunk(network)


def with_stem(name: str) -> Any:
    network, spec = resnet(), STEMS[name]  # type: ignore[index]
    torch.manual_seed(1)
    network.conv1 = nn.Conv2d(3, 64, spec.kernel, spec.stride, spec.padding, bias=False)
    if not spec.pool:
        network.maxpool = nn.Identity()
    return network


def vit(heads: int) -> tuple[Any, dict[str, Tensor]]:
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch16_224", num_heads=heads, num_classes=0)
    return sharpened(as_trained(network)), network.state_dict()


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_backbone(path, options=ReadingOptions(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# MSRA's and Caffe's ResNets.

MSRA_FLAGS = {"normalisation": "caffe", "channels": "bgr", "stride_in_1x1": True}


def test_caffe_style_by_flags_or_with_its_assumptions(tmp_path: Path) -> None:
    original, state = msra()
    for content in (state, {"state_dict": {**under("backbone.", state), "bbox_head.x": torch.ones(2)}}):
        path = save(content, tmp_path)
        error, read = difference(path, original, **MSRA_FLAGS)
        assert error < TOLERANCE
        assert {fact.source for name, fact in read.reading.facts.items() if name in MSRA_FLAGS} == {
            "--normalisation",
            "--channels",
            "--stride-in-1x1",
        }
        error, read = difference(path, original)
        assert error > 0.1
        (sentence,) = read.reading.assumptions()
        for flag in ("--normalisation", "--channels bgr", "--stride-in-1x1", "--stem", "--output-stride"):
            assert flag in sentence
        assert "anti-aliasing" in sentence


def test_caffe_style_by_the_configuration_in_the_file(tmp_path: Path) -> None:
    original, state = msra()
    content = {
        "meta": {"epoch": 12, "config": CAFFE_CONFIG},
        "state_dict": {
            **under("backbone.", state),
            "bbox_head.x": torch.ones(2),
            "rpn_head.x": torch.ones(2),
        },
    }
    path = save(content, tmp_path)
    error, read = difference(path, original)
    assert error < TOLERANCE
    assert (read.format, read.normalisation, read.meta["epochs"]) == ("openmmlab", CAFFE, 12)
    assert read.reading.channels.source == "meta.config in the file"
    assert "leave --channels out" in refused(path, channels="rgb")


def test_a_dilated_segmenter_by_its_configuration_and_a_dilated_resnet_by_a_flag(tmp_path: Path) -> None:
    network = resnet("resnet50", replace_stride_with_dilation=[False, True, True])
    state = trunk(network)
    content = {"meta": {"cfg": DILATED_CONFIG}, "state_dict": under("backbone.", state)}
    content["state_dict"]["decode_head.conv_seg.weight"] = torch.ones(2)
    error, read = difference(save(content, tmp_path), Original(network))
    assert error < TOLERANCE
    assert read.reading.output_stride is not None
    assert (read.reading.output_stride.value, read.reading.output_stride.assumed) == (8, False)
    path = save(state, tmp_path, "plain.pth")
    assert difference(path, Original(network), output_stride=8)[0] < TOLERANCE
    error, read = difference(path, Original(network))
    assert error > 0.1
    assert "--output-stride" in read.reading.assumptions()[0]
    content["meta"]["cfg"] = DILATED_CONFIG.replace("contract_dilation=True", "contract_dilation=False")
    assert "contract_dilation" in refused(save(content, tmp_path))


# Detectron2's files.


def detectron2_trunk(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + to_detectron2(key): tensor for key, tensor in state.items()}


def test_a_detector_needs_what_nothing_states(tmp_path: Path) -> None:
    original, state = msra()
    path = save({"model": detectron2_trunk(state, "backbone.bottom_up.")}, tmp_path, "model_final.pth")
    with pytest.raises(AmbiguousReading, match="--normalisation caffe --channels bgr --stride-in-1x1"):
        read_backbone(path)
    refused(path, channels="bgr", stride_in_1x1=True)
    assert difference(path, original, **MSRA_FLAGS)[0] < TOLERANCE
    yaml = tmp_path / "config.yaml"
    settings = "MODEL:\n  PIXEL_MEAN: [103.53, 116.28, 123.675]\n  PIXEL_STD: [1.0, 1.0, 1.0]\n"
    yaml.write_text(f"{settings}  RESNETS:\n    STRIDE_IN_1X1: true\nINPUT:\n  FORMAT: BGR\n")
    error, read = difference(path, original)
    assert error < TOLERANCE
    assert read.reading.channels.source == "config.yaml beside the file"
    assert "--no-stride-in-1x1" not in refused(path, stride_in_1x1=False).split(":")[0]
    yaml.write_text("MODEL: [")
    assert f"lies beside {yaml}" in refused(path)
    yaml.write_text("name: another program\n")
    assert "MSRA" in refused(path)
    yaml.write_text("MODEL:\n  PIXEL_MEAN: [1.0]\n  PIXEL_STD: [1.0]\nINPUT: {FORMAT: BGR}\n")
    assert "not understood" in refused(path)


def test_pixel_buffers_in_the_file(tmp_path: Path) -> None:
    original, state = msra()
    buffers = {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]), "pixel_std": torch.ones(3)}
    model = {**detectron2_trunk(state, "backbone.bottom_up."), "backbone.top_block.p6.weight": torch.ones(2)}
    path = save({"model": model | {k: v.view(3, 1, 1) for k, v in buffers.items()}}, tmp_path)
    error, read = difference(path, original)
    assert error < TOLERANCE
    assert read.normalisation == CAFFE
    assert "pixel_mean" in refused(path, normalisation="imagenet")
    network = resnet("resnet50")
    buffers = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}  # type: ignore[dict-item]
    model = detectron2_trunk(trunk(network), "backbone.bottom_up.")
    path = save({"model": model | {k: torch.tensor(v) for k, v in buffers.items()}}, tmp_path)
    error, read = difference(path, Original(network))
    assert error < TOLERANCE
    assert (read.normalisation, read.reading.channels.value) == (IMAGENET, "rgb")


@pytest.mark.parametrize("author", ["torchvision", more("MOCO"), more("OpenSelfSup"), "Detectron2 Model Zoo"])
def test_converters_name_themselves(tmp_path: Path, author: str) -> None:
    network = resnet("resnet50")
    arrays = {key: tensor.numpy() for key, tensor in detectron2_trunk(trunk(network)).items()}
    arrays["stem.fc.weight"] = torch.ones(2, 2).numpy()
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": author, "matching_heuristics": True}))
    if author == "Detectron2 Model Zoo":
        assert "MSRA" in refused(path)
    else:
        error, read = difference(path, Original(network))
        assert error < TOLERANCE
        assert author in read.reading.normalisation.source


# Stems.


@pytest.mark.parametrize("name", [name for name in STEMS if name != "imagenet"])
def test_a_stem_by_its_flag_or_with_its_assumption(tmp_path: Path, name: str) -> None:
    network = with_stem(name)
    path = save(trunk(network), tmp_path)
    assert difference(path, Original(network), stem=name)[0] < TOLERANCE
    error, read = difference(path, Original(network))
    assert error < TOLERANCE or name != "small"
    assert "the stem" in read.reading.assumptions()[0]
    other = "imagenet" if STEMS[name].kernel == 3 else "small"  # type: ignore[index]
    assert "first convolution of" in refused(path, stem=other)
    assert "is unknown" in refused(path, stem="large")


@pytest.mark.parametrize(
    ("stem", "head"),
    [
        ("small", "projector.0.weight"),
        ("small-pad2", "head.0.weight"),
        more("small", "head.0.weight"),
        more("small-pad2", "projector.0.weight"),
    ],
)
def test_a_small_stem_beside_heads_is_refused_until_said(tmp_path: Path, head: str, stem: str) -> None:
    network = with_stem(stem)
    tensors = {**under("backbone.", trunk(network)), head: torch.ones(4, 4)}
    for content in ({"state_dict": tensors}, {"model": tensors}, tensors):
        path = save(content, tmp_path)
        assert "--stem small or --stem small-pad2" in refused(path)
        assert difference(path, Original(network), stem=stem, normalisation="imagenet")[0] < TOLERANCE


def test_solo_learns_files_are_known_by_their_settings(tmp_path: Path) -> None:
    network = with_stem("small-pad2")
    tensors = {
        **under("backbone.", trunk(network)),
        **under("projector.", HEAD),
        **under("classifier.", HEAD),
    }
    content = {"state_dict": tensors, "hyper_parameters": {"method": "simsiam", "dataset": "cifar10"}}
    error, read = difference(save(content, tmp_path), Original(network, CIFAR10))
    assert error < TOLERANCE
    assert not read.reading.assumptions()
    del content["hyper_parameters"]
    path = save(content, tmp_path, "x.ckpt")
    assert "small-pad2" in refused(path)
    settings: dict[str, Any] = {"method": "byol", "data": {"dataset": "cifar100"}}
    (tmp_path / "args.json").write_text(json.dumps(settings))
    error, read = difference(path, Original(network, NAMES["cifar100"]))
    assert error < TOLERANCE
    assert read.reading.stem is not None
    assert "args.json beside the file" in read.reading.stem.source
    (tmp_path / "args.json").write_text('{"method": "byol"}')
    read = read_backbone(path)
    assert read.normalisation == CIFAR10
    assert read.reading.normalisation.assumed
    (tmp_path / "args.json").write_text('{"method": "by')
    assert "mend or remove" in refused(path)
    (tmp_path / "args.json").write_text('{"lr": 1}')
    assert "small-pad2" in refused(path)


def test_settings_of_lightning_are_read_without_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("pytorch_lightning.utilities.parsing")
    kind = type("AttributeDict", (dict,), {"__module__": module.__name__, "__qualname__": "AttributeDict"})
    module.AttributeDict = kind  # type: ignore[attr-defined]
    for name in ("pytorch_lightning", "pytorch_lightning.utilities"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    tensors = {**under("backbone.", trunk(with_stem("small-pad2"))), **under("projector.", HEAD)}
    settings = kind(method="vicreg", dataset="cifar10")
    path = save({"state_dict": tensors, "hyper_parameters": settings}, tmp_path)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert read_backbone(path).stem == "small-pad2"


# Normalisations that a format fixes.


def test_directpreds_images_are_not_normalised(tmp_path: Path) -> None:
    for network, normalisation in ((resnet(), NONE), (with_stem("small"), CIFAR10_LOOSE)):
        networks = under("encoder.", trunk(network))
        content = {
            "online_network_state_dict": networks,
            "target_network_state_dict": networks,
            "predictor_state_dict": HEAD,
        }
        error, read = difference(save(content, tmp_path), Original(network, normalisation))
        assert error < TOLERANCE
        assert not read.reading.assumptions()


def test_normalisations_are_names_or_a_mean_and_a_std_for_each_channel() -> None:
    assert parse_normalisation("half") == HALF
    assert parse_normalisation("0.1,0.2,0.3/1,2,3") == ((0.1, 0.2, 0.3), (1, 2, 3))
    assert parse_normalisation("0.1,0.2/1,2") == ((0.1, 0.2), (1, 2))
    for text in ("", "Imagenet", "1,2,3", "1,2/1,2,3", "0,0,0/1,1,0", "nan,0,0/1,1,1", "0,0,0/1,1,inf"):
        with pytest.raises(UserError, match="normalisation"):
            parse_normalisation(text)


# Heads.


@pytest.mark.parametrize("heads", [6, 12])
def test_a_small_vit_needs_its_heads(tmp_path: Path, heads: int) -> None:
    network, state = vit(heads)
    path = save(state, tmp_path)
    assert "--heads 6 or --heads 12" in refused(path)
    error, read = difference(path, lambda x: network(normalised(x, *IMAGENET)), 224, heads=heads)
    assert error < TOLERANCE
    assert read.architecture.attention_heads == heads
    assert "which 7 attention heads do not divide" in refused(path, heads=7)


def mocos_positions() -> Tensor:
    """The fixed position embedding as MoCo v3 builds it."""
    grid = torch.arange(14, dtype=torch.float32)
    grid_w, grid_h = torch.meshgrid(grid, grid, indexing="ij")
    omega = 1.0 / 10000 ** (torch.arange(96, dtype=torch.float32) / 96)
    w, h = (torch.einsum("m,d->md", [part.flatten(), omega]) for part in (grid_w, grid_h))
    waves = torch.cat([w.sin(), w.cos(), h.sin(), h.cos()], dim=1)
    return torch.cat([torch.zeros(1, 384), waves])[None]


def test_moco_v3s_small_vit_in_other_files(tmp_path: Path) -> None:
    network, state = vit(12)
    head = {"head.weight": torch.ones(10, 384), "head.bias": torch.ones(10)}
    probe = {"epoch": 90, "arch": "vit_small", "best_acc1": torch.tensor(73.2), "optimizer": {}}
    solo = {**under("backbone.", state), **under("classifier.", HEAD), **under("projector.", HEAD)}

    def original(images: Tensor) -> Tensor:
        return network(normalised(images, *IMAGENET))

    contents: list[Any] = [
        {**probe, "state_dict": under("module.", {**state, **head})},
        {"state_dict": solo, "hyper_parameters": {"method": "mocov3", "dataset": "imagenet100"}},
    ]
    for content in contents:
        error, read = difference(save(content, tmp_path), original, 224)
        assert error < TOLERANCE
        assert (read.name, read.reading.assumptions()) == ("vit_small_moco_v3", [])
    with torch.no_grad():
        network.pos_embed.copy_(mocos_positions())
    path = save(network.state_dict(), tmp_path)
    assert difference(path, original, 224)[0] < TOLERANCE
    assert "position embedding" in refused(path, heads=6)
    halves = mocos_positions()[..., torch.arange(384).roll(192)]  # as MAE has them
    assert "--heads 12" in refused(save({**state, "pos_embed": halves}, tmp_path))


def test_other_vits_say_their_assumed_heads(tmp_path: Path) -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    read = read_backbone(save(network.state_dict(), tmp_path))
    assert "3 attention heads" in read.reading.assumptions()[0]
    assert "--stem does not apply" in refused(save(network.state_dict(), tmp_path), stem="small")
    assert "--heads does not apply" in refused(save(random_state("resnet18", 8), tmp_path), heads=3)
    assert "does not apply" in refused(save(random_state("resnet18", 8), tmp_path), stride_in_1x1=True)


# Other names and precisions.


def test_densecl_and_patrickhuas_second_resnet(tmp_path: Path) -> None:
    states = {seed: random_state("resnet18", 8, seed=seed) for seed in (1, 2)}
    dense = {
        **under("backbone.", states[1]),
        **under("encoder_q.0.", states[1]),
        **under("encoder_q.1.mlp.", HEAD),
        **under("encoder_k.0.", states[2]),
        **under("encoder_k.1.mlp2.", HEAD),
        **{name: torch.ones(2) for name in ("queue", "queue_ptr", "queue2", "queue2_ptr")},
    }
    read = read_backbone(save({"state_dict": dense, "meta": {}}, tmp_path))
    assert same_tensors(read.state, states[1])
    assert set(read.branches) == {"backbone", "query", "key"}
    network = with_stem("small")
    named = {key.replace(".downsample.", ".shortcut."): tensor for key, tensor in trunk(network).items()}
    content = {
        "state_dict": {
            **under("backbone.", named),
            **under("encoder.0.", named),
            **under("encoder.1.layer1.", HEAD),
            **under("projector.layer1.", HEAD),
        }
    }
    error, read = difference(save(content, tmp_path), Original(network), normalisation="imagenet")
    assert error < TOLERANCE
    assert (read.format, read.stem) == ("patrickhua", "small")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, kind: torch.dtype) -> None:
    state = {
        key: t.to(kind) if t.is_floating_point() else t for key, t in random_state("resnet18", 8).items()
    }
    read = read_backbone(save(state, tmp_path))
    expected = {key: t.float() if t.is_floating_point() else t for key, t in state.items()}
    assert same_tensors(read.state, expected)
    assert read.digest == digest_of(expected)
    assert digest_of(load_backbone(save(state, tmp_path))[0].state_dict()) == read.digest
    own = own_checkpoint(state, "resnet18", 8, "imagenet")
    assert read_backbone(save(own, tmp_path, "own.pth")).digest == read.digest
    if kind == torch.float64:
        state["bn1.bias"][0] = 1e300
        assert "beyond the range of float32" in refused(save(state, tmp_path))


# The very network, and files beside.


def test_a_timm_model_by_its_name_or_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = as_trained(timm.create_model("resnetblur18", num_classes=10))

    def original(images: Tensor) -> Tensor:
        maps = network.forward_features(normalised(images, *HALF))
        return network.forward_head(maps, pre_logits=True)

    path = save(network.state_dict(), tmp_path)
    options = {"architecture": "timm:resnetblur18", "normalisation": "half"}
    assert difference(path, original, **options)[0] < TOLERANCE
    assert "is not timm:resnet26" in refused(path, architecture="timm:resnet26")
    assert "did you mean" in refused(path, architecture="timm:resnetblurr18")
    saved = {"arch": "resnetblur18", "state_dict": network.state_dict(), "epoch": 3}
    assert difference(save(saved, tmp_path, "y.pth"), original, normalisation="half")[0] < TOLERANCE
    config = tmp_path / "config.json"
    half = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config.write_text(json.dumps({"architecture": "resnetblur18", "pretrained_cfg": half}))
    error, read = difference(path, original)
    assert error < TOLERANCE
    assert (read.name, read.reading.assumptions()) == ("timm:resnetblur18", [])
    assert "config.json beside the file" in refused(path, normalisation="imagenet")
    config.write_text(json.dumps({"architecture": "resnet26"}))
    capsys.readouterr()
    assert read_backbone(path).name == "resnet18"
    assert "nothing of that was used" in capsys.readouterr().err
    config.write_text('{"architecture": ')
    assert "mend or remove" in refused(path)
    config.write_text('{"method": {"name": "simsiam"}}')
    assert read_backbone(path).name == "resnet18"
    assert "neither timm's nor Hugging Face's" in capsys.readouterr().err


def test_our_own_files_assume_nothing(tmp_path: Path) -> None:
    state = random_state("resnet50", 8, "small")
    path = save(own_checkpoint(state, "resnet50", 8, "small"), tmp_path)
    read = read_backbone(path)
    assert read.reading.assumptions() == []
    assert read.reading.as_dict()["stem"] == {"value": "small", "source": "the file's own record"}
    assert "leave --stem out" in refused(path, stem="small-pad2")
    assert "leave --normalisation out" in refused(path, normalisation="imagenet")
    assert read_backbone(path, options=ReadingOptions(stem="small")).digest == read.digest
    assert (
        read_backbone("random:resnet18:width=8", options=ReadingOptions(normalisation="half")).normalisation
        == HALF
    )


def test_the_stride_that_pixel_std_suggests_is_an_assumption(tmp_path: Path) -> None:
    _, state = msra()
    buffers = {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]), "pixel_std": torch.ones(3)}
    path = save({"model": detectron2_trunk(state, "backbone.bottom_up.") | buffers}, tmp_path)
    read = read_backbone(path)
    assert read.architecture.stride_in_1x1
    assert "stride in the 1x1" in read.reading.assumptions()[0]
    assert "(otherwise say e.g. --no-stride-in-1x1)" in read.reading.assumptions()[0]
    read = read_backbone(path, options=ReadingOptions(stride_in_1x1=False))
    assert not read.architecture.stride_in_1x1
    settings = "MODEL: {RESNETS: {STRIDE_IN_1X1: false}}"
    (tmp_path / "config.yaml").write_text(settings)
    read = read_backbone(path)
    assert not read.architecture.stride_in_1x1
    assert "convolutions" not in "".join(read.reading.assumptions())
