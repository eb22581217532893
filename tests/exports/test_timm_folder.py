"""Folders of timm: timm's own create_model gives the features of the checkpoint's own library."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from support.checkpoint_files import random_state
from torch import Tensor

import siamtransfer
from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.preprocessing import Preprocessing, of_timm
from siamtransfer.checkpoints.read_backbone import digest_of, read_backbone
from siamtransfer.checkpoints.reading import Fact
from siamtransfer.exports import timm_folder
from siamtransfer.programs import export
from siamtransfer.utils.errors import UserError


def images(side: int = 64) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def loaded(folder: Path) -> Any:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def test_timm_computes_what_torchvision_computes(tmp_path: Path) -> None:
    state = random_state("resnet18", seed=4)
    torch.save(state, tmp_path / "in.pth")
    out = tmp_path / "out"
    record = export.main([str(tmp_path / "in.pth"), str(out), "--to", "timm", "--normalisation", "half"])
    network = torchvision.models.resnet18()
    network.load_state_dict(state, strict=False)
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(loaded(out)(images()), network.eval()(images()))
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "siamtransfer.json",
    ]
    config = json.loads((out / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["num_features"]) == ("resnet18", 0, 512)
    settings = timm.data.resolve_model_data_config(loaded(out))
    assert (*settings["mean"], *settings["std"]) == (0.5,) * 6
    assert settings["input_size"] == (3, 224, 224)
    assert not {"license", "tag", "url", "paper_ids"} & config["pretrained_cfg"].keys()  # of timm's weights
    assert record["metrics"]["proof/max_relative_difference"] <= 1e-6
    account = json.loads((out / "siamtransfer.json").read_text())
    assert account["weights_digest"] == digest_of(state) == read_backbone(out).digest
    assert account["source"] == "in.pth"  # and no folder of this machine
    assert str(tmp_path) not in (out / "siamtransfer.json").read_text()


def test_what_tensors_do_not_show_goes_along(tmp_path: Path) -> None:
    """Heads, activation, pooling and the size of the positions, against timm's network with those."""
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "num_heads": 4,
        "act_layer": "quick_gelu",
        "img_size": 96,
        "global_pool": "max",
    }
    original = timm.create_model("test_vit", num_classes=0, **options).eval()
    read = read_backbone("random:timm:test_vit")
    architecture = Architecture("timm:test_vit", heads=4, activation="quick_gelu", image_size=96, pool="max")
    backbone = architecture.build()
    backbone.load_state_dict(original.state_dict())
    reading = dataclasses.replace(read.reading, heads=Fact(4, "the test"))
    backbone.source = dataclasses.replace(read, architecture=architecture, reading=reading)
    siamtransfer.export(backbone, tmp_path / "out", "timm")
    with torch.no_grad():
        torch.testing.assert_close(loaded(tmp_path / "out")(images(96)), original(images(96)))
    again = read_backbone(tmp_path / "out")
    assert (again.architecture, again.digest) == (architecture, digest_of(original.state_dict()))


def test_dilated_resnets(tmp_path: Path) -> None:
    torch.save(random_state("resnet18", seed=4), tmp_path / "in.pth")
    out = tmp_path / "out"
    export.main([str(tmp_path / "in.pth"), str(out), "--to", "timm", "--output-stride", "8", "--size", "64"])
    network = torchvision.models.resnet18()
    assert loaded(out).forward_features(images()).shape[-1] == 8
    assert read_backbone(out).architecture.output_stride == 8
    assert timm.data.resolve_model_data_config(loaded(out))["input_size"] == (3, 64, 64)
    assert network.fc.in_features == loaded(out).num_features


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("random:resnet18:width=16", "a width of 16"),
        ("random:resnet18:stem=small", "the stem small"),
        ("random:resnet18:norm=group-ws", "the norm group-ws"),
        ("random:torchvision:alexnet", "other names of tensors in timm"),
    ],
)
def test_networks_that_timm_has_not_are_refused(source: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        export.main([source, str(tmp_path / "out"), "--to", "timm"])
    assert list(tmp_path.iterdir()) == []


def test_a_stride_in_the_1x1_convolutions_is_refused(tmp_path: Path) -> None:
    torch.save(random_state("resnet50", 64), tmp_path / "in.pth")
    with pytest.raises(UserError, match="stride in the 1x1 convolutions"):
        export.main([str(tmp_path / "in.pth"), str(tmp_path / "out"), "--to", "timm", "--stride-in-1x1"])


def test_a_configuration_that_gives_other_features_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = timm_folder._write_config

    def wrong_heads(network: Any, model: Any, path: Path) -> None:
        write(network, model, path)
        config = json.loads(path.read_text())
        config["model_args"]["num_heads"] = 4
        path.write_text(json.dumps(config))

    monkeypatch.setattr(timm_folder, "_write_config", wrong_heads)
    with pytest.raises(UserError, match=r"gives other features than the backbone.*nothing was written"):
        export.main(["random:timm:test_vit", str(tmp_path / "out"), "--to", "timm"])
    assert list(tmp_path.iterdir()) == []


def test_other_normalisations_in_the_configuration_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = timm_folder._write_config

    def wrong_mean(network: Any, model: Any, path: Path) -> None:
        write(network, model, path)
        config = json.loads(path.read_text())
        config["pretrained_cfg"]["mean"] = [0.5, 0.5, 0.5]
        path.write_text(json.dumps(config))

    monkeypatch.setattr(timm_folder, "_write_config", wrong_mean)
    with pytest.raises(UserError, match="gives other features"):
        export.main(["random:timm:test_vit", str(tmp_path / "out"), "--to", "timm"])


@pytest.mark.parametrize(
    ("size", "resize"), [(224, 256), (518, 592), (160, 183), (32, 32), (96, 110), (7, 9)]
)
def test_the_share_of_the_crop_gives_the_same_sizes_back(size: int, resize: int) -> None:
    share = timm_folder.crop_share(Preprocessing(size, resize, "bicubic"))
    config = {"input_size": (3, size, size), "crop_pct": share, "interpolation": "bicubic"}
    assert of_timm(config) == Preprocessing(size, resize, "bicubic")
    transform = timm.data.create_transform((3, size, size), crop_pct=share, crop_mode="center")
    assert transform.transforms[0].size == resize
