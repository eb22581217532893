"""Images at the size of the input, and descriptors: against Pillow, timm and formulas written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.feature_layers import FeatureLayers
from siamtransfer.backbones.feature_maps import FeatureMaps
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.retrieval.config import RetrievalConfig
from siamtransfer.evaluation.retrieval.descriptors import AtScales, DescriptorModel, PooledBackbone
from siamtransfer.evaluation.retrieval.images import Sizing
from siamtransfer.evaluation.retrieval.sets import images_below
from siamtransfer.utils.errors import UserError

CPU = Runtime(torch.device("cpu"), torch.float32)
DRAW = np.random.default_rng(0)
PHOTO = DRAW.integers(0, 256, (90, 120, 3), np.uint8)


def test_the_longer_side_is_shortened_as_pillow_does() -> None:
    picture = Image.fromarray(PHOTO)
    picture.thumbnail((64, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(Sizing(64, "long").apply(PHOTO), np.asarray(picture))
    assert np.array_equal(Sizing(512, "long").apply(PHOTO), PHOTO)  # never enlarged
    square = Image.fromarray(PHOTO).resize((50, 50), Image.Resampling.BICUBIC)
    assert np.array_equal(Sizing(50, "square").apply(PHOTO), np.asarray(square))


def test_a_query_is_cut_and_shortened_with_its_image() -> None:
    box = (9.6, 20.2, 69.7, 50.4)
    cut = Image.fromarray(PHOTO).crop((10, 20, 70, 50))  # 60 x 30 of 120 x 90
    with_image, alone = cut.copy(), cut.copy()
    with_image.thumbnail((32, 32), Image.Resampling.LANCZOS)  # 64 / 120 of it
    assert np.array_equal(Sizing(64, "long", "box").apply(PHOTO, box), np.asarray(with_image))
    alone.thumbnail((40, 40), Image.Resampling.LANCZOS)
    assert np.array_equal(Sizing(40, "long", "box-alone").apply(PHOTO, box), np.asarray(alone))
    assert Sizing(64, "long", "none").apply(PHOTO, box).shape == (48, 64, 3)
    with pytest.raises(ValueError, match="lies outside of its 120 x 90 pixels"):
        Sizing(64, "long", "box").apply(PHOTO, (120, 0, 130, 9))
    with pytest.raises(ValueError, match=r"becomes 64 x 48 pixels and the network needs 50 .* raise --size"):
        Sizing(64, "long", "none", 50).apply(PHOTO)


def test_gem_of_a_map_by_hand() -> None:
    backbone = build_backbone("resnet18", width=8, stem="small").eval()
    x = torch.rand(2, 3, 40, 48)
    with torch.no_grad():
        features = FeatureMaps(backbone, "layer3")(x)
        found = PooledBackbone(backbone, ["gem", "output", "mean"], "layer3", 3.0)(x)
    flat = features.flatten(2).clamp(min=1e-6).double()
    gem = (flat**3).mean(2) ** (1 / 3)
    mean = features.mean((2, 3))
    expected = torch.cat([gem.float(), mean, mean], 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["timm:test_vit", "resnet18", "timm:test_efficientnet"])
def test_one_pass_gives_what_two_give(name: str) -> None:
    backbone = build_backbone(name, width=8 if name == "resnet18" else 64).eval()
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        found = PooledBackbone(backbone, ["output", "mean"], "output", 3.0)(x)
        expected = torch.cat([FeatureLayers(backbone)(x), FeatureMaps(backbone)(x).mean((2, 3))], 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_scales_are_averaged_and_trimmed_to_patches() -> None:
    backbone = build_backbone("timm:test_vit").eval()  # patches of 16
    part = AtScales(PooledBackbone(backbone, ["output"], "output", 3.0), [1.0, 2**-0.5, 0.5])
    assert part.least == 32
    x = torch.rand(1, 3, 70, 100)
    with torch.no_grad():
        sizes = [x[:, :, :64, :96]]
        for scale, (height, width) in ((2**-0.5, (48, 64)), (0.5, (32, 48))):
            smaller = functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
            sizes.append(smaller[:, :, :height, :width])
        expected = sum(backbone(each) for each in sizes) / 3
        torch.testing.assert_close(part(x), expected)


def model(source: str, **options: object) -> DescriptorModel:
    return DescriptorModel.open(RetrievalConfig(checkpoint=source, **options), CPU)  # type: ignore[arg-type]


def test_images_of_many_shapes_keep_their_order_in_any_batch(tmp_path: Path) -> None:
    for number, (height, width) in enumerate([(40, 60), (60, 40), (40, 60), (50, 50), (60, 40)]):
        Image.fromarray(DRAW.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{number}.png")
    images = images_below(str(tmp_path), "--x")
    source = "random:resnet18:width=8:stem=small"
    rows = [
        model(source, size=48, forward_batch_size=batch, workers=workers).describe(images, "images")
        for batch, workers in ((1, 0), (5, 0), (2, 1))
    ]
    assert rows[0].shape == (5, 64)
    for other in rows[1:]:
        torch.testing.assert_close(other, rows[0], rtol=1e-4, atol=1e-6)
    assert len(torch.unique(rows[0], dim=0)) == 5


def test_images_that_are_too_small_or_broken_are_named(tmp_path: Path) -> None:
    Image.fromarray(PHOTO[:20]).save(tmp_path / "a.png")
    images = images_below(str(tmp_path), "--x")
    with pytest.raises(
        UserError, match=r"a\.png because it becomes 120 x 20 pixels and the network needs 32"
    ):
        model("random:timm:test_vit").describe(images, "images")
    (tmp_path / "b.png").write_bytes(b"no image")
    images = images_below(str(tmp_path), "--x")
    with pytest.raises(UserError, match=r"b\.png"):
        model("pixels").describe(images, "images")
    kept = list(model("pixels").blocks(images, range(2), "images", skip=True))
    assert [numbers for numbers, _ in kept] == [[0]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there are no images below"):
        images_below(str(tmp_path / "empty"), "--x")
    with pytest.raises(UserError, match=r"--x .*a\.png is no folder"):
        images_below(str(tmp_path / "a.png"), "--x")


def test_networks_of_one_size_say_which() -> None:
    with pytest.raises(
        UserError, match="takes images of 224 x 224 pixels only: give --resize square --size 224"
    ):
        model("random:timm:cait_xxs24_224")


def test_sizes_that_a_network_refuses_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    refusing = model("random:timm:test_vit")

    def refuse(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("height should be divisible by 7")

    monkeypatch.setattr(refusing.part, "forward", refuse)
    with pytest.raises(
        UserError, match=r"does not take images of 120 x 90 pixels .*\(height should .* --scales 1"
    ):
        refusing.describe(images_below(str(tmp_path), "--x"), "images")


def test_a_network_without_maps_or_layers_is_refused() -> None:
    with pytest.raises(UserError, match="no map of a layer 'layer9'"):
        model("random:resnet18:width=8", pooling="gem", layers="layer9")
