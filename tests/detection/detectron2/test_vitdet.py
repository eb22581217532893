"""Plain ViTs for the ViT of Detectron2's main branch: names, settings, and what does not fit.

python -m pytest tests/detection/detectron2/test_vitdet.py
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import timm_file

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.file_format import IMAGENET
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.detectron2.convert import to_detectron2
from siamtransfer.detection.detectron2.vitdet import LAYOUT, vitdet_settings, vitdet_weights
from siamtransfer.programs import to_d2
from siamtransfer.utils.errors import UserError

NAME = "timm:test_vit"
BLOCK = {
    "norm1.weight": (64,), "norm1.bias": (64,), "norm2.weight": (64,), "norm2.bias": (64,),
    "attn.qkv.weight": (192, 64), "attn.qkv.bias": (192,),
    "attn.proj.weight": (64, 64), "attn.proj.bias": (64,),
    "mlp.fc1.weight": (192, 64), "mlp.fc1.bias": (192,), "mlp.fc2.weight": (64, 192), "mlp.fc2.bias": (64,),
}  # fmt: skip


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The folder, its OUT.pkl's content, and the record."""
    folder = tmp_path_factory.mktemp("vitdet")
    record = to_d2.main([str(timm_file(folder, NAME)), str(folder / "out.pkl"), "--layout", "vitdet"])
    assert record is not None
    with (folder / "out.pkl").open("rb") as file:
        return folder, pickle.load(file), record


def test_the_names_are_those_below_backbone_net(
    converted: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, content, record = converted
    expected = {
        "patch_embed.proj.weight": (64, 3, 16, 16),
        "patch_embed.proj.bias": (64,),
        "pos_embed": (1, 101, 64),
    }
    expected |= {f"blocks.{n}.{name}": shape for n in range(6) for name, shape in BLOCK.items()}
    model = content["model"]
    assert {name: array.shape for name, array in model.items()} == {
        f"backbone.net.{name}": shape for name, shape in expected.items()
    }
    state = next(folder.glob("*.pth"))
    source = read_backbone(state).state
    assert all(
        torch.equal(torch.from_numpy(array), source[name.removeprefix("backbone.net.")])
        for name, array in model.items()
    )
    assert record["protocol"]["left_out"] == ["cls_token", "norm.weight", "norm.bias"]
    assert sorted(path.name for path in folder.glob("out.*")) == ["out.pkl"]


def test_settings_of_a_vit_b_are_those_of_its_published_configuration() -> None:
    settings = vitdet_settings(Architecture("timm:vit_base_patch16_224"), IMAGENET, "b.pkl")
    net = {
        key.split(".")[-1]: value for key, value in settings.items() if key.startswith("model.backbone.net.")
    }
    assert net == {
        "embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4, "qkv_bias": True,
        "window_block_indexes": [0, 1, 3, 4, 6, 7, 9, 10],
        "pretrain_img_size": 224, "pretrain_use_cls_token": True,
    }  # fmt: skip
    assert settings["model.pixel_mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert settings["model.pixel_std"] == pytest.approx([58.395, 57.12, 57.375])
    assert settings["train.init_checkpoint"] == "b.pkl"


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("timm:vit_base_patch16_siglip_224", {}, {"pretrain_use_cls_token": False}),
        ("timm:vit_base_patch16_384", {}, {"pretrain_img_size": 384}),
        ("timm:vit_base_patch16_224", {"heads": 6}, {"num_heads": 6}),
    ],
)
def test_settings_follow_the_network(name: str, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    settings = vitdet_settings(Architecture(name, **changes), IMAGENET, "b.pkl")
    assert {key: settings[f"model.backbone.net.{key}"] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:deit3_small_patch16_224", r"it has blocks\.0\.ls1\.gamma"),
        ("timm:test_vit2", "it has blocks.0.ls1.gamma"),
        ("timm:vit_small_patch14_dinov2", "its patches have 14 pixels"),
        ("timm:vit_base_patch32_224", "its patches have 32 pixels"),
        ("timm:vit_small_patch16_dinov3", "its patches or positions are those of timm's Eva"),
        ("timm:vit_base_patch16_clip_224", "norm_pre"),
        ("timm:vit_base_patch16_clip_quickgelu_224", "its activation is QuickGELU"),
        ("timm:deit_tiny_distilled_patch16_224", "dist"),
        ("timm:convnext_atto", "it is no plain ViT"),
        ("resnet18", "it is no plain ViT"),
    ],
)
def test_what_its_blocks_would_compute_otherwise_is_refused(name: str, words: str) -> None:
    architecture = (
        Architecture(name) if name.startswith("timm:") else read_backbone(f"random:{name}").architecture
    )
    with torch.device("meta"):
        state = architecture.build().state_dict()
    with pytest.raises(UserError, match=rf"x\.pth does not fit the ViT of .*{words}.*leave --layout out"):
        vitdet_weights(dict(state), architecture, "x.pth")


def test_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.pkl"):
        to_detectron2(f"random:{NAME}", tmp_path / "out.pth", layout=LAYOUT)
    with pytest.raises(UserError, match="for which that ViT has no place"):
        to_detectron2("random:timm:test_vit4", tmp_path / "out.pkl", layout=LAYOUT)
    assert list(tmp_path.iterdir()) == []
    assert to_detectron2(f"random:{NAME}", tmp_path / "out.pkl", layout=LAYOUT, dry_run=True).paths == ()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out.pkl").write_text("mine")
    with pytest.raises(UserError, match="exists; choose another name"):
        to_detectron2(f"random:{NAME}", tmp_path / "out.pkl", layout=LAYOUT)
    assert (tmp_path / "out.pkl").read_text() == "mine"


@pytest.mark.detectron2
@pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)
def test_detectron2s_checkpointer_fills_such_a_detector(
    converted: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    import_detectron2()
    from detectron2.checkpoint import DetectionCheckpointer

    folder, content, _ = converted
    vit: Any = Architecture(NAME).build()
    vit = vit.model
    vit.cls_token, vit.norm = None, torch.nn.Identity()
    detector = torch.nn.Module()
    detector.backbone = torch.nn.Module()
    detector.backbone.net = vit
    for parameter in detector.parameters():
        torch.nn.init.zeros_(parameter)
    DetectionCheckpointer(detector).load(str(folder / "out.pkl"))
    loaded = detector.state_dict()
    assert loaded.keys() == content["model"].keys()
    assert all(torch.equal(value, torch.from_numpy(content["model"][name])) for name, value in loaded.items())


@torch.no_grad()
def test_the_main_branchs_vit_computes_what_timms_does_without_its_class_token(
    converted: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    if not is_installed():
        pytest.skip("Detectron2 is not installed: python scripts/get_detectron2.py")
    import_detectron2()
    vit: Any = pytest.importorskip("detectron2.modeling.backbone.vit", reason="release 0.6 has no ViT")
    folder, content, record = converted
    arguments = {
        key.split(".")[-1]: value
        for key, value in record["protocol"]["settings"].items()
        if key.startswith("model.backbone.net.") and not key.endswith("window_block_indexes")
    }
    norm = lambda channels: torch.nn.LayerNorm(channels, eps=1e-6)  # noqa: E731
    theirs = vit.ViT(patch_size=16, use_rel_pos=True, img_size=160, norm_layer=norm, **arguments)
    state = {name.removeprefix("backbone.net."): torch.from_numpy(a) for name, a in content["model"].items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all(".rel_pos_" in name for name in missing)  # zero at the beginning
    ours: Any = Architecture(NAME).build()
    ours.load_state_dict(read_backbone(next(folder.glob("*.pth"))).state)
    model = ours.eval().model
    model.pos_embed = torch.nn.Parameter(model.pos_embed[:, 1:])
    model.cls_token, model.num_prefix_tokens = None, 0
    image = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    expected = model.forward_intermediates(image, indices=1, norm=False, intermediates_only=True)[0]
    torch.testing.assert_close(theirs.eval()(image)["last_feat"], expected, rtol=1e-4, atol=1e-5)
