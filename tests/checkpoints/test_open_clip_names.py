"""Weights of open_clip by name: its folders, and its names of networks with a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.public_formats import as_open_clip
from torch import Tensor

from siamtransfer.checkpoints.normalisation import CLIP, HALF
from siamtransfer.checkpoints.open_clip_weights import find_open_clip_weights
from siamtransfer.checkpoints.preprocessing import Preprocessing
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.checkpoints.reading import ASSUMED, Fact
from siamtransfer.utils.errors import UserError

BESIDE = "open_clip_config.json beside the file"
VISION = {"image_size": 224, "layers": 12, "width": 512, "patch_size": 32}
"""open_clip's ViT-M-32, the smallest one that timm has."""


@pytest.fixture(scope="module")
def tower() -> tuple[Any, dict[str, Tensor]]:
    """timm's network, and its tensors in the names of open_clip beside those of a text tower."""
    torch.manual_seed(0)
    model = timm.create_model("vit_medium_patch32_clip_224", num_classes=0).eval()
    state = {f"visual.{name}": tensor.clone() for name, tensor in as_open_clip(model.state_dict()).items()}
    return model, state | {"logit_scale": torch.ones(()), "token_embedding.weight": torch.zeros(4, 4)}


def write(folder: Path, state: dict[str, Tensor], vision: dict[str, Any] = VISION, **config: Any) -> Path:
    """A folder of open_clip; `config` changes or adds entries."""
    save_file(state, folder / "open_clip_model.safetensors")
    prepared = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    whole = {"model_cfg": {"embed_dim": 512, "vision_cfg": vision}, "preprocess_cfg": prepared, **config}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    return folder


@torch.no_grad()
def test_a_folder(tower: tuple[Any, dict[str, Tensor]], tmp_path: Path) -> None:
    model, state = tower
    write(tmp_path, state)
    images = torch.randn(1, 3, 224, 224)
    for source in (f"openclip:{tmp_path}", f"hf:{tmp_path}", str(tmp_path)):
        backbone, read = load_backbone(source)
        assert (read.format, read.name) == ("open-clip", "timm:vit_medium_patch32_clip_224")
        assert read.reading.normalisation == Fact(HALF, BESIDE)
        assert read.reading.preprocessing == Fact(Preprocessing(224, 224, "bicubic"), BESIDE)
        assert read.reading.heads == Fact(8, BESIDE)
        torch.testing.assert_close(backbone(images), model(images), atol=1e-5, rtol=1e-5)


def test_settings_of_the_folder_that_change_the_network(
    tower: tuple[Any, dict[str, Tensor]], tmp_path: Path
) -> None:
    _, state = tower
    quick = write(tmp_path, state, model_cfg={"quick_gelu": True, "vision_cfg": VISION})
    assert read_backbone(quick).architecture.activation == "quick_gelu"
    narrow = write(tmp_path, state, {**VISION, "head_width": 32})
    assert read_backbone(narrow).architecture.heads == 16
    for vision, message in (
        ({**VISION, "pool_type": "avg"}, "an image tower with pool_type 'avg', as open_clip_config.json"),
        ({**VISION, "head_width": 48}, "10 attention heads do not divide"),
    ):
        with pytest.raises(UserError, match=message):
            read_backbone(write(tmp_path, state, vision))


def test_images_that_are_squashed_and_damaged_settings(
    tower: tuple[Any, dict[str, Tensor]], tmp_path: Path
) -> None:
    _, state = tower
    squashed = write(
        tmp_path, state, preprocess_cfg={"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    )
    assert read_backbone(squashed).reading.preprocessing is None
    for config, message in (
        ({"preprocess_cfg": {"mean": [0.5], "std": "x"}}, "preprocess_cfg is not understood"),
        ({"model_cfg": None}, "lacks open_clip's model_cfg"),
    ):
        with pytest.raises(UserError, match=message):
            read_backbone(write(tmp_path, state, **config))
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(UserError, match="mend or remove that file"):
        read_backbone(tmp_path)


def test_a_file_and_the_name_of_its_network(tower: tuple[Any, dict[str, Tensor]], tmp_path: Path) -> None:
    _, state = tower
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    read = read_backbone(f"openclip:ViT-M-32={tmp_path}/open_clip_pytorch_model.bin")
    assert read.name == "timm:vit_medium_patch32_clip_224"
    assert read.reading.normalisation == Fact(CLIP, ASSUMED)
    quick = write(tmp_path, state, model_cfg={"quick_gelu": True, "vision_cfg": VISION})
    with pytest.raises(UserError, match="says that the activation is quick_gelu, and the name says another"):
        read_backbone(f"openclip:ViT-M-32={quick}/open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(
        UserError, match=r"is not timm:vit_base_patch32_clip_224, as the name openclip:ViT-B-32"
    ):
        read_backbone(f"openclip:ViT-B-32={tmp_path}/open_clip_pytorch_model.bin")


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("ViT-B-32", "vit_base_patch32_clip_224"),
        ("ViT-L-14-336-quickgelu", "vit_large_patch14_clip_quickgelu_336"),
        ("ViT-bigG-14", "vit_gigantic_patch14_clip_224"),
        ("RN50x4-quickgelu", "resnet50x4_clip"),
    ],
)
def test_names(name: str, network: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert find_open_clip_weights(f"openclip:{name}={tmp_path}/file").network == f"timm:{network}"


def test_sources_that_name_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for source, message in (
        ("openclip:ViT-B-32", "there is no folder ViT-B-32, and nothing is downloaded here"),
        ("openclip:ViT-B-32=absent", "there is no file absent"),
        (f"openclip:{tmp_path}", "the folder has no open_clip_config.json"),
        (f"openclip:coca_ViT-B-32={tmp_path}/file", "coca_ViT-B-32 is none of open_clip's names"),
        (f"openclip:ViT-B-31={tmp_path}/file", "did you mean"),
    ):
        with pytest.raises(UserError, match=message):
            find_open_clip_weights(source)
