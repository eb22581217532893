"""Every program takes every kind of source: a file, a folder, and weights by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf

import siamtransfer
from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.config import BackboneConfig, PretrainConfig
from siamtransfer.detection.engines import TorchvisionEngine
from siamtransfer.pretraining.build import build_method, fill_backbone
from siamtransfer.pretraining.start import find_start
from siamtransfer.programs import pretrain
from siamtransfer.utils.errors import UserError

NAME = "test_convnext"
WORDS: dict[str, list[str]] = {
    **{name: [] for name in ("knn", "linear", "fewshot", "diagnose", "semisup", "identify")},
    **{name: ["--data.root", "."] for name in ("svm", "copies", "video", "depth")},
    "features": ["--out", "OUT.npz"],
    "attention": ["--out", "OUT", "--data.name", "scenes"],
    "segmentation": ["--data.name", "masks", "--data.root", "."],
    "retrieval": ["--data.name", "roxford5k", "--data.root", "."],
    "to_d2": ["OUT.pkl"],
    "to_torchvision": ["OUT.pth"],
    "export": ["OUT", "--to", "timm"],
}
"""Programs, and the words that they need behind a checkpoint."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Sources of one network by their kinds, and its weights."""
    folder = tmp_path_factory.mktemp("sources")
    torch.manual_seed(1)  # random: has 0
    model = timm.create_model(NAME, num_classes=0)
    torch.save(model.state_dict(), folder / "file.pth")
    save_for_hf(model, str(folder / "hub"), safe_serialization=True)
    kinds = {
        "file": f"{folder}/file.pth",
        "timm": f"timm:{NAME}={folder}/file.pth",
        "folder": f"{folder}/hub",
        "hf": f"hf:{folder}/hub",
        "random": f"random:timm:{NAME}",
    }
    return kinds, model.state_dict()


@pytest.mark.parametrize("program", WORDS)
def test_a_program_takes_them(
    program: str, sources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = importlib.import_module(f"siamtransfer.programs.{program}").main
    for source in sources[0].values():
        config = command.parse([source, *WORDS[program]])
        config.check()
        assert source in (getattr(config, "checkpoint", None), *getattr(config, "checkpoints", []))
    for absent in ("absent.pth", f"timm:{NAME}=absent.pth", "hf:absent", "openclip:ViT-B-32=absent.bin"):
        with pytest.raises(UserError, match=r"there is no file .*absent"):
            command.parse([absent, *WORDS[program]]).check()


def test_they_hold_the_same_network(sources: Any) -> None:
    kinds, state = sources
    for kind, source in kinds.items():
        backbone, read = load_backbone(source)
        assert read.name == f"timm:{NAME}"
        same = all(torch.equal(tensor, state[key]) for key, tensor in backbone.state_dict().items())
        assert same == (kind != "random")
        assert siamtransfer.load_backbone(source).source.name == read.name


@pytest.mark.parametrize("kind", ["file", "timm", "folder", "hf"])
def test_a_run_starts_from_them(sources: Any, kind: str) -> None:
    source = sources[0][kind]
    pretrain.main.parse(["--backbone.name", f"timm:{NAME}", "--backbone.weights", source])
    for name in (f"timm:{NAME}", None):
        config = PretrainConfig(backbone=BackboneConfig(name=name, weights=source))
        start = find_start(config.backbone, config.views.build())
        assert start.weights is not None
        method = build_method(config, start.architecture)
        fill_backbone(method, start.weights)
        assert all(torch.equal(t, sources[1][key]) for key, t in method.backbone.state_dict().items())


def test_a_run_says_what_it_cannot_start_from(tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.save(model.state_dict() | {"decoder_embed.weight": torch.zeros(3, 3)}, tmp_path / "mae.pth")
    others: list[dict[str, Any]] = [{"name": "vit_small_patch16_224"}, {"width": 32}, {"stem": "small"}]
    for other in others:
        settings = BackboneConfig(weights=str(tmp_path / "mae.pth"), **other)
        [(key, said)] = other.items()
        sentence = rf"holds name timm:vit_tiny_patch16_224, and the run is to train {key} (timm:)?{said}: set"
        with pytest.raises(UserError, match=sentence):
            find_start(settings, PretrainConfig().views.build())
    unknown = BackboneConfig(name="vit_tiny_patch16_242", weights=str(tmp_path / "mae.pth"))
    with pytest.raises(UserError, match="did you mean vit_tiny_patch16_224"):
        find_start(unknown, PretrainConfig().views.build())


def test_what_the_configuration_says_decides_an_ambiguous_file(tmp_path: Path) -> None:
    torch.save(timm.create_model("vit_small_patch16_224", num_classes=0).state_dict(), tmp_path / "vit.pth")
    torch.save(timm.create_model("efficientnet_b0", num_classes=0).state_dict(), tmp_path / "net.pth")
    views = PretrainConfig().views.build()
    for file, name, found in (
        ("vit.pth", "vit_small_moco_v3", "vit_small_moco_v3"),
        ("net.pth", "tf_efficientnet_b0", "timm:tf_efficientnet_b0"),
    ):
        start = find_start(BackboneConfig(name=name, weights=str(tmp_path / file)), views)
        assert start.architecture.name == found
        with pytest.raises(UserError, match=r"begin with --backbone.reading.\), or name the network by"):
            find_start(BackboneConfig(weights=str(tmp_path / file)), views)


def test_detection_takes_them(sources: Any) -> None:
    from siamtransfer.programs import detection

    words = ["--config", "scenes-fpn", "--engine", "torchvision", "--weights"]
    for source in sources[0].values():
        detection.main.parse([*words, source]).check()
        read = TorchvisionEngine({}).initialization(source).weights
        assert read is not None
        assert read.name == f"timm:{NAME}"
    for absent in ("hf:absent", f"timm:{NAME}=absent.pth"):
        with pytest.raises(UserError, match=r"there is no file .*absent"):
            detection.main.parse([*words, absent]).check()
    with pytest.raises(UserError, match="there is no file absent: siamtransfer to-d2"):
        detection.main.parse(["--config", "scenes-fpn", "--weights", "absent"]).check()
