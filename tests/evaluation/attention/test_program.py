"""`siamtransfer attention`: pictures and numbers of a ViT and a ResNet, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.timm import TimmBackbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.attention.attention_pictures import show_attention
from siamtransfer.evaluation.attention.config import AttentionConfig
from siamtransfer.evaluation.attention.network import Network
from siamtransfer.evaluation.attention.subjects import Subjects
from siamtransfer.evaluation.dense.input_size import InputSize, to_input
from siamtransfer.programs.attention import main
from siamtransfer.records.comparison import compare
from siamtransfer.utils.errors import UserError

VIT, RESNET = "random:vit_tiny_patch16_224", "random:resnet18:width=8:stem=small"
CPU = ["--device=cpu", "--precision=float32"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of different shapes."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for name, (height, width) in {"a": (40, 60), "b": (64, 32), "c": (48, 48)}.items():
        Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The output and the record of a ViT on scenes."""
    out = tmp_path_factory.mktemp("scenes") / "out"
    words = ["--data.name=fashion-scenes", "--data.count=5", "--data.size=64", "--pictures=2"]
    record = main([VIT, str(out), *words, "--patch", "20", "30", "--pca-foreground", *CPU])
    assert record is not None
    return out, record


def test_a_vit_on_scenes_gives_pictures_and_numbers(scenes: tuple[Path, dict[str, Any]]) -> None:
    out, record = scenes
    files = {path.name for path in out.iterdir()}
    assert files == {"attention.png", "masks.png", "pca.png", "similarity.png", "record.json", "record.npz"}
    for name in files - {"record.json", "record.npz"}:
        assert np.asarray(Image.open(out / name)).std() > 5
    assert json.loads((out / "record.json").read_text())["metrics"] == record["metrics"]
    metrics, protocol = record["metrics"], record["protocol"]
    heads = [metrics[f"jaccard/foreground/head={n}"] for n in (1, 2, 3)]
    assert metrics["jaccard/foreground/best-head-of-set"] == max(heads)
    assert metrics["jaccard/foreground/best-head-of-set/head"] == 1 + int(np.argmax(heads))
    assert metrics["jaccard/foreground/best-head-of-image"] >= max(heads)
    assert 0 < metrics["jaccard/best-head-of-object"] < 100
    assert protocol["jaccard"]["images"] + protocol["jaccard"]["images_without_objects"] == 5
    assert (protocol["images_in_set"], protocol["block"], record["provenance"]["block"]) == (5, "last", 12)
    assert record["provenance"]["similarity"]["patch"] == [1, 1]
    assert record["provenance"]["shown"] == ["attention", "pca", "similarity"]
    assert sum(metrics[f"pca/explained/{n}"] for n in (1, 2, 3)) <= 100


def test_the_batch_changes_no_number(scenes: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    words = ["--data.name=fashion-scenes", "--data.count=5", "--data.size=64"]
    pca = ["--show", "attention", "pca", "--pictures=2"]
    record = main([VIT, str(tmp_path / "out"), *words, *pca, "--forward-batch-size=2", *CPU])
    assert record is not None
    assert record["metrics"] == pytest.approx(scenes[1]["metrics"], abs=1e-6)
    found = compare(scenes[0] / "record.json", tmp_path / "out/record.json", setting="best-head-of-object")
    (difference,) = found.differences.values()
    assert difference.first == record["metrics"]["jaccard/best-head-of-object"]
    assert (difference.value, difference.low, difference.high, found.better) == (0, 0, 0, None)


def test_a_head_that_sees_the_objects_reaches_a_hundred(tmp_path: Path) -> None:
    """Head 2 of a ViT made by hand attends to bright patches; the objects are bright and lie on the grid."""
    from timm.models.vision_transformer import VisionTransformer

    backbone = TimmBackbone("timm:test_vit")
    backbone.name = "by hand"
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=0, dynamic_img_size=True
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.patch_embed.proj.weight[0] = 20 / (3 * 8 * 8)
        model.blocks[0].norm1 = torch.nn.Identity()
        model.blocks[0].attn.qkv.bias[8] = 1
        model.blocks[0].attn.qkv.weight[16 + 8, 0] = 1
    backbone.model = model

    class Bright:
        """Images of 16 x 24 pixels whose objects, classes 1 and 2, are white on black."""

        name, split, classes, ignore, remarks, fingerprint = (
            "bright",
            "val",
            ("background", "x", "y"),
            255,
            list[str](),
            "-",
        )
        content_fingerprint = "-"

        def __len__(self) -> int:
            return 2

        def mask(self, index: int) -> np.ndarray:
            grid = np.array([[[0, 1, 2], [0, 1, 0]], [[2, 0, 0], [0, 0, 0]]][index], np.uint8)
            return grid.repeat(8, 0).repeat(8, 1)

        def image(self, index: int) -> np.ndarray:
            return np.repeat((self.mask(index) > 0).astype(np.uint8)[..., None] * 255, 3, axis=2)

        def path(self, index: int) -> None:
            return None

        mask_path = path

        def describe(self, index: int) -> str:
            return f"bright[{index}]"

    class Read:
        normalisation = ((0.0,) * 3, (1.0,) * 3)
        architecture = Architecture("timm:test_vit")

    network = Network("by hand", backbone.eval(), Read(), Runtime(torch.device("cpu"), torch.float32))  # type: ignore[arg-type]
    bright = Bright()
    config = AttentionConfig(out=str(tmp_path), mass=0.99)
    metrics = show_attention(
        network, Subjects(bright, bright, "bright/val", "-"), InputSize(16, False, 8), config
    ).metrics
    assert metrics["jaccard/foreground/head=2"] == 100
    assert metrics["jaccard/foreground/best-head-of-set/head"] == 2
    # of three bright patches, two are of one object and one of the other; the second image has one object
    assert metrics["jaccard/best-head-of-object"] == pytest.approx(100 * ((2 / 3 + 1 / 3) / 2 + 1) / 2)
    assert metrics["jaccard/foreground/head=1"] == pytest.approx(100 * (3 / 6 + 1 / 6) / 2)


def test_a_resnet_has_components_of_any_layer_and_no_attention(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(photos), "--size=32", "--layers=layer3", "--pca=per-image", "--resize=shorter"]
    record = main([RESNET, str(tmp_path / "out"), *words, "--patch", "3", "50", "--patch-image=2", *CPU])
    assert record is not None
    assert set(record["metrics"]) == {f"pca/explained/{n}" for n in (1, 2, 3)}
    assert record["provenance"]["shown"] == ["pca", "similarity"]
    assert record["provenance"]["similarity"]["image"].endswith("b.png")
    assert "no attention is shown: resnet18 is no ViT" in capsys.readouterr().err
    assert not (tmp_path / "out/attention.png").exists()
    with pytest.raises(UserError, match=r"resnet18 is no ViT.*; show pca or similarity of it"):
        main([RESNET, str(tmp_path / "no"), str(photos), "--show", "attention", *CPU])
    assert not (tmp_path / "no").exists()


def test_inputs_are_multiples_of_the_patch() -> None:
    assert InputSize(480, True, 16).of(300, 500) == (480, 480)
    assert InputSize(480, False, 14).of(300, 500) == (476, 798)
    assert InputSize(7, False, 1).of(21, 63) == (7, 21)
    assert to_input(np.zeros((5, 9, 3), np.uint8), (16, 32)).shape == (3, 16, 32)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "give a checkpoint"),
        (["pixels", "OUT", "x.png"], "raw pixels have neither"),
        ([VIT, "OUT"], "give either images"),
        ([VIT, "OUT", "x.png", "--data.name=fashion-scenes"], "give either images"),
        ([VIT, "OUT", "no-such.png"], "there is no image no-such.png"),
        ([VIT, "OUT", "--data.name=voc21"], "there is no set 'voc21'"),
        ([VIT, "OUT", "x.png", "--mass=0"], "--mass is 0"),
        ([VIT, "OUT", "x.png", "--show", "similarity"], "needs the pixel"),
        ([VIT, "OUT", "x.png", "--patch", "3"], "--patch 3 must be two numbers"),
        ([VIT, "OUT", "x.png", "--show", "pca", "--patch", "3", "4"], "--patch belongs to similarity"),
        ([VIT, "OUT", "x.png", "--pca-invert"], "give both"),
        ([VIT, "FULL", "x.png"], "is not empty"),
        (["random:resnet18:width=8", "OUT", "PHOTOS", "--layers=block3"], "has no map of a layer 'block3'"),
        ([VIT, "OUT", "PHOTOS", "--block=13"], "has the blocks 1 to 12"),
        ([VIT, "OUT", "PHOTOS", "--size=32", "--patch", "60", "0"], "--patch 60 0 is outside its image"),
        ([VIT, "OUT", "PHOTOS", "--size=32", "--patch", "6", "0", "--patch-image=4"], "3 images are shown"),
    ],
)
def test_what_means_nothing_is_refused_in_a_sentence(
    words: list[str], why: str, photos: Path, tmp_path: Path
) -> None:
    places = {"OUT": str(tmp_path / "out"), "FULL": str(photos), "PHOTOS": str(photos)}
    with pytest.raises(UserError, match=why):
        main([*(places.get(word, word) for word in words), *CPU])
    assert not (tmp_path / "out").exists(), "nothing is written by a program that fails"


def test_equal_sides_are_needed_by_networks_of_one_size(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes images of 224 x 224 pixels only"):
        main(["random:timm:cait_xxs24_224", str(tmp_path / "out"), str(photos), "--size=64", *CPU])
