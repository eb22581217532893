"""Position embeddings at other sizes than the training's: interpolated as by the code that wrote the file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from support.thorough import more
from torch import Tensor

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.vit_positions import interpolated
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.checkpoints.reading import ASSUMED, Fact
from siamtransfer.programs import to_torchvision
from siamtransfer.utils.errors import UserError

TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
DINOV2 = {"hidden_size": 384, "num_attention_heads": 6, "patch_size": 14, "image_size": 518}


def cubic(old: int, new: int, factor: float) -> np.ndarray[Any, Any]:
    """The weights [new, old] of cubic convolution (Keys 1981, with a = -0.75 as in PyTorch) of a row of `old`
    numbers enlarged by `factor`, the borders repeated."""
    a = -0.75
    weights = np.zeros((new, old))
    for row in range(new):
        place = (row + 0.5) / factor - 0.5
        for neighbour in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            x = abs(place - neighbour)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            weights[row, min(max(neighbour, 0), old - 1)] += near if x <= 1 else far if x < 2 else 0
    return weights


def by_hand(positions: Tensor, old: int, new: tuple[int, int], others: int, offset: float) -> Tensor:
    """Positions [1, P, D] by the factor (new + offset) / old."""
    rows, columns = (cubic(old, length, (length + offset) / old) for length in new)
    grid = positions[0, others:].double().numpy().reshape(old, old, -1)
    patches = np.einsum("ri,cj,ijd->rcd", rows, columns, grid).reshape(new[0] * new[1], -1)
    return torch.cat([positions[:, :others], torch.tensor(patches)[None].float()], dim=1)


@pytest.mark.parametrize(("way", "offset"), [("bicubic", 0.0), ("bicubic-offset", 0.1)])
@pytest.mark.parametrize("new", [(16, 16), (5, 11), (20, 14)])
def test_the_formula(way: str, offset: float, new: tuple[int, int]) -> None:
    positions = torch.randn(1, 1 + 14 * 14, 8)
    found = interpolated(positions, (14, 14), new, 1, way)
    torch.testing.assert_close(found, by_hand(positions, 14, new, 1, offset), atol=2e-5, rtol=0)


def test_at_the_trained_size_nothing_is_interpolated() -> None:
    positions = torch.randn(1, 1 + 14 * 14, 8)
    for way in ("antialiased", "bicubic", "bicubic-offset"):
        assert interpolated(positions, (14, 14), (14, 14), 1, way) is positions


@pytest.mark.parametrize(
    "name", ["test_vit", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"]
)
def test_antialiased_is_timms_way(name: str) -> None:
    """With one token, two, and positions that leave the class token out."""
    torch.manual_seed(0)
    plain, chosen = build_backbone(f"timm:{name}"), build_backbone(f"timm:{name}", positions="antialiased")
    chosen.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected, found = plain.eval()(images), chosen.eval()(images)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
        copied = copy.deepcopy(chosen)
        for parameter in chosen.parameters():
            parameter.zero_()
        assert torch.equal(copied(images), found)  # a copy adds its own positions


def write(network: str, folder: Path, model: str, **options: Any) -> Any:
    """A network of transformers with positions that matter, and its folder."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = f"{network}VisionConfig" if model == "VisionModel" else f"{network}Config"
    built = getattr(transformers, f"{network}{model}")(getattr(transformers, settings)(**options)).eval()
    for name, tensor in built.state_dict().items():
        if "position_embedding" in name and tensor.is_floating_point():
            tensor.copy_(torch.randn_like(tensor))
    built.save_pretrained(folder)
    return built


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "model", "options", "sizes"),
    [
        more("Dinov2", "Model", DINOV2, ((224, 224), (112, 196), (518, 518))),
        ("Dinov2WithRegisters", "Model", DINOV2, ((224, 224), (112, 196))),
        ("DINOv3ViT", "Model", {**DINOV2, "patch_size": 16, "num_register_tokens": 4}, ((96, 160),)),
        ("ViT", "Model", TINY, ((96, 160), (288, 288))),
        more("ViTMAE", "Model", {**TINY, "mask_ratio": 0.0}, ((288, 288),)),
        more("DeiT", "Model", TINY, ((96, 160),)),
        more("CLIP", "VisionModel", {"patch_size": 32, "hidden_size": 512, "num_attention_heads": 8,
             "intermediate_size": 2048, "hidden_act": "gelu"}, ((160, 160), (96, 288))),
    ],
)  # fmt: skip
def test_transformers_way(
    network: str, model: str, options: dict[str, Any], sizes: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    theirs = write(network, tmp_path, model, **options)
    backbone, read = load_backbone(tmp_path)
    way = {"Dinov2WithRegisters": "antialiased"}.get(network, "bicubic")
    if network != "DINOv3ViT":  # which has a rotation instead of embeddings
        assert read.reading.positions == Fact(way, "the format huggingface")
    always = network.startswith(("Dino", "DINO"))
    for height, width in sizes:
        images = torch.randn(1, 3, height, width)
        output = theirs(images, **({} if always else {"interpolate_pos_encoding": True}))
        expected = output.last_hidden_state[:, 0] if model == "Model" else output.pooler_output
        if network == "DeiT":  # timm takes the mean of the class token and the distillation token
            expected = output.last_hidden_state[:, :2].mean(dim=1)
        if network == "ViTMAE":  # transformers shuffles the patches, which the class token does not notice
            assert output.ids_restore.shape[1] == height * width // 256
        torch.testing.assert_close(backbone(images), expected, atol=1e-5, rtol=1e-5)


def metas_dinov2(tmp_path: Path, **options: Any) -> tuple[Any, Path]:
    """A file in the layout of Meta's DINOv2, and timm's network with these weights."""
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **options)
    with torch.no_grad():
        model.pos_embed.normal_()
    torch.save(model.state_dict() | {"mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2_vits14.pth")
    return model, tmp_path / "dinov2_vits14.pth"


@torch.no_grad()
def test_metas_dinov2_takes_dinos_factor(tmp_path: Path) -> None:
    model, file = metas_dinov2(tmp_path)
    backbone, read = load_backbone(file)
    assert read.reading.positions == Fact("bicubic-offset", "the format dinov2")
    assert read.architecture.positions == "bicubic-offset"
    native = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=(112, 196)).eval()
    positions = by_hand(model.pos_embed, 37, (8, 14), 1, 0.1)
    native.load_state_dict(model.state_dict() | {"pos_embed": positions})
    images = torch.randn(2, 3, 112, 196)
    torch.testing.assert_close(backbone(images), native(images), atol=1e-5, rtol=1e-5)
    read = read_backbone(file, options=ReadingOptions(architecture="timm:vit_small_patch14_dinov2"))
    assert read.reading.positions == Fact("bicubic-offset", "the format dinov2")


@torch.no_grad()
def test_a_user_says_how_a_file_of_weights_alone_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True).eval()
    model.pos_embed.normal_()
    torch.save(model.state_dict(), tmp_path / "file.pth")
    backbone, read = load_backbone(tmp_path / "file.pth")
    assert read.reading.positions == Fact("antialiased", ASSUMED)
    assert "--positions bicubic" in read.reading.assumptions()[0]
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(backbone(images), model(images), atol=1e-6, rtol=1e-6)
    other, read = load_backbone(tmp_path / "file.pth", options=ReadingOptions(positions="bicubic"))
    assert read.reading.positions == Fact("bicubic", "--positions")
    assert not torch.allclose(other(images), backbone(images), atol=1e-3)


def test_what_cannot_be_chosen_is_refused(tmp_path: Path) -> None:
    _, dinov2 = metas_dinov2(tmp_path)
    torch.save(build_backbone("resnet18").state_dict(), tmp_path / "resnet.pth")
    for file, positions, message in (
        (dinov2, "nearest", "--positions 'nearest' is unknown; take antialiased, bicubic, bicubic-offset"),
        (tmp_path / "resnet.pth", "bicubic", "holds resnet18, to which --positions does not apply"),
    ):
        with pytest.raises(UserError, match=message):
            read_backbone(file, options=ReadingOptions(positions=positions))
    for name in ("timm:convnext_atto", "timm:vit_small_patch16_dinov3"):
        with pytest.raises(UserError, match="no position embeddings that could be interpolated"):
            build_backbone(name, positions="bicubic")
    with pytest.raises(UserError, match="positions 'nearest' are unknown"):
        build_backbone("timm:test_vit", positions="nearest")


@pytest.mark.parametrize(
    ("form", "way"),
    [
        ("dino", "bicubic-offset"),
        ("ibot", "bicubic-offset"),
        ("msn", "bicubic"),
        ("mae", "bicubic"),
        ("moco-v3", "antialiased"),
    ],
)
def test_the_way_of_a_code_base(form: str, way: str, tmp_path: Path) -> None:
    trunk = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()

    def below(prefix: str) -> dict[str, Tensor]:
        return {f"{prefix}{name}": tensor for name, tensor in trunk.items()}

    one = torch.zeros(3, 192)
    files: dict[str, dict[str, Any]] = {
        "dino": {
            "teacher": below("backbone."),
            "student": below("module.backbone."),
            "dino_loss": {"center": one},
        },
        "ibot": {
            name: below("backbone.") | {"backbone.masked_embed": one} for name in ("teacher", "student")
        },
        "msn": {name: trunk | {"fc.weight": one} for name in ("target_encoder", "encoder")},
        "mae": {"model": trunk | {"decoder_embed.weight": one}},
        "moco-v3": {"state_dict": below("module.base_encoder.") | {"module.predictor.0.weight": one}},
    }
    torch.save(files[form], tmp_path / "file.pth")
    read = read_backbone(
        tmp_path / "file.pth", options=ReadingOptions(heads=3) if form == "moco-v3" else None
    )
    assert read.format == form
    assert read.reading.positions == Fact(way, f"the format {form}")


@pytest.mark.parametrize("out", ["out.pth", "out.safetensors"])
def test_a_converted_file_keeps_its_way(out: str, tmp_path: Path) -> None:
    trunk = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    torch.save(trunk | {"decoder_embed.weight": torch.zeros(3, 192)}, tmp_path / "mae.pth")
    to_torchvision.main([str(tmp_path / "mae.pth"), str(tmp_path / out)])
    read = read_backbone(tmp_path / out)
    assert read.architecture.positions == "bicubic"
    assert read.reading.positions == Fact("bicubic", "recorded at conversion: the format mae")
