"""Features of a frozen backbone: in order, of all images, without touching it; the cache; foreign files."""

from __future__ import annotations

import functools
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_runs import context, send
from torch import Tensor, nn
from torchvision.transforms import v2

import siamtransfer.features.cache
from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.data.imageset import ArrayImages
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.cache import FeatureCache
from siamtransfer.features.extract import Transform, evaluation_transform, extract, extract_pixels
from siamtransfer.features.feature_file import read_feature_file
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write

ALONE = Runtime(torch.device("cpu"), torch.float32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def noise() -> ArrayImages:
    return ArrayImages(
        "noise", "train", np.random.default_rng(0).integers(0, 256, (23, 20, 20, 3), dtype=np.uint8)
    )


@pytest.fixture
def backbone() -> nn.Module:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", width=8, stem="small")
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.get_buffer("running_mean"), 0, 0.1)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    return backbone


TRANSFORM = Transform(16, 18, MEAN, STD)


def test_features_are_those_of_torchvisions_transform_one_image_at_a_time(
    noise: ArrayImages, backbone: nn.Module
) -> None:
    theirs = v2.Compose(
        [
            v2.Resize(18),
            v2.CenterCrop(16),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    ours = extract(backbone, noise, TRANSFORM, ALONE)
    backbone.eval()
    with torch.no_grad():
        expected = torch.cat([backbone(theirs(Image.fromarray(noise.image(n)))[None]) for n in range(23)])
    assert (ours.shape, ours.dtype) == ((23, 64), torch.float32)
    # PIL's resize is within one grey level of torch's on 8 bits
    torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.05)
    whole = extract(backbone, noise, Transform(20, None, MEAN, STD), ALONE)
    unresized = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    with torch.no_grad():
        expected = backbone(torch.stack([unresized(Image.fromarray(noise.image(n))) for n in range(23)]))
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": 7}, {"batch": 100, "workers": 2}], ids=str)
def test_batches_and_workers_make_no_difference(
    options: dict[str, int], noise: ArrayImages, backbone: nn.Module
) -> None:
    torch.testing.assert_close(
        extract(backbone, noise, TRANSFORM, ALONE, **options),
        extract(backbone, noise, TRANSFORM, ALONE),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("training", [True, False])
def test_the_backbone_is_left_as_it_was(training: bool, noise: ArrayImages, backbone: nn.Module) -> None:
    backbone.train(training)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    extract(backbone, noise, TRANSFORM, ALONE)
    assert backbone.training == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_the_backbone_is_left_in_its_mode_also_when_an_image_is_bad(
    backbone: nn.Module, shapes_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"bad")
    with pytest.raises(UserError, match=r"a\.png"):
        extract(backbone.train(), open_images("flat", root=tmp_path), TRANSFORM, ALONE)
    assert backbone.training


def test_features_that_are_not_finite_are_refused(noise: ArrayImages, backbone: nn.Module) -> None:
    backbone.bn1.running_var.fill_(float("nan"))  # type: ignore[union-attr,operator]
    with pytest.raises(UserError, match="not finite"):
        extract(backbone, noise, TRANSFORM, ALONE)


def test_bfloat16_gives_nearly_the_same_features(noise: ArrayImages, backbone: nn.Module) -> None:
    half = extract(backbone, noise, TRANSFORM, Runtime(torch.device("cpu"), torch.bfloat16))
    full = extract(backbone, noise, TRANSFORM, ALONE)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert torch.cosine_similarity(half, full).min() > 0.995


def test_pixels_are_raw_values_between_0_and_1(noise: ArrayImages) -> None:
    found = extract_pixels(noise, Transform(20, None, MEAN, STD))
    expected = torch.from_numpy(noise.pixels).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(found, expected.flatten(1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("crop", "image_size", "resize"), [(224, None, 256), (32, 32, None), (32, 96, 37), (96, None, 110)]
)
def test_the_usual_transform(crop: int, image_size: int | None, resize: int | None) -> None:
    assert evaluation_transform(crop, image_size, MEAN, STD) == Transform(crop, resize, MEAN, STD)


# The cache.


def test_a_key_changes_with_everything_that_moves_the_features(tmp_path: Path) -> None:
    cache, base = FeatureCache(tmp_path), ("weights", "images", TRANSFORM, "float32")
    others = [
        ("other weights", "images", TRANSFORM, "float32"),
        ("weights", "other images", TRANSFORM, "float32"),
        ("weights", "images", TRANSFORM, "bfloat16"),
        *(
            ("weights", "images", replace(TRANSFORM, **change), "float32")
            for change in (
                {"crop": 17},
                {"resize": None},
                {"mean": (0.5,) * 3},
                {"std": (0.5,) * 3},
                {"interpolation": "bicubic"},
            )
        ),
    ]
    paths = [cache.path(*key) for key in (base, *others)]
    assert len(set(paths)) == len(paths)
    assert cache.path(*base) == FeatureCache(tmp_path).path(*base)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cache, features = FeatureCache(tmp_path / "new"), torch.randn(5, 3)
    path = cache.path("w", "i", TRANSFORM, "float32")
    assert cache.read(path, 5) is None
    cache.write(path, features)
    found = cache.read(path, 5)
    assert found is not None
    assert torch.equal(found, features)
    assert cache.read(path, 6) is None
    found += 1  # memory-mapped privately: the file stays
    assert torch.equal(FeatureCache(tmp_path / "new").read(path, 5), features)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_file_that_is_not_whole_is_not_used(content: bytes | None, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    path = cache.path("w", "i", TRANSFORM, "float32")
    cache.write(path, torch.randn(50, 30))
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    assert cache.read(path, 50) is None
    np.save(path, np.zeros((50, 30)))  # float64
    assert cache.read(path, 50) is None


def write_and_die(folder: Path) -> None:
    class Dying:
        def __init__(self, file: Any):
            self.file = file

        def write(self, content: bytes) -> None:
            self.file.write(content[:100])
            self.file.flush()
            send(signal.SIGKILL)

    siamtransfer.features.cache.np.save = lambda file, *_, **__: Dying(file).write(bytes(1000))
    cache = FeatureCache(folder)
    cache.write(cache.path("w", "i", TRANSFORM, "float32"), torch.randn(50, 30))


def test_a_killed_write_leaves_nothing_to_use(tmp_path: Path) -> None:
    process = context().Process(target=functools.partial(write_and_die, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    cache = FeatureCache(tmp_path)
    assert cache.read(cache.path("w", "i", TRANSFORM, "float32"), 50) is None


# Features of any framework.


def write_npz(path: Path, **arrays: Any) -> Path:
    with atomic_write(path) as file:
        np.savez(file, **arrays)
    return path


def test_foreign_features_are_read_as_float32_and_int64(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float16)
    found = read_feature_file(
        write_npz(tmp_path / "a.npz", features=features, labels=np.array([3, 1, 2, 0], np.uint8), more=1)
    )
    assert (found.features.dtype, found.labels.dtype) == (torch.float32, torch.int64)  # type: ignore[union-attr]
    assert torch.equal(found.features, torch.from_numpy(features.astype(np.float32)))
    assert isinstance(found.labels, Tensor)
    assert found.labels.tolist() == [3, 1, 2, 0]


GOOD, LABELS = np.ones((4, 3), np.float32), np.arange(4)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"features": GOOD}, "has no array labels"),
        ({"labels": LABELS}, "has no array features"),
        ({"features": GOOD, "labels": LABELS[:3]}, r"features\[4, 3\] and labels\[3\]"),
        ({"features": GOOD[0], "labels": LABELS[:3]}, r"features\[3\]"),
        ({"features": GOOD[:0], "labels": LABELS[:0]}, r"features\[0, 3\]"),
        ({"features": GOOD, "labels": LABELS / 2}, "labels of type float64"),
        ({"features": GOOD * np.inf, "labels": LABELS}, "not all finite"),
        ({"features": GOOD.astype(int), "labels": LABELS}, "finite floating-point"),
        ({"features": np.array([["a"] * 3] * 4), "labels": LABELS}, "finite floating-point"),
        ({"features": np.array([[None] * 3] * 4, object), "labels": LABELS}, "cannot be read"),
    ],
)
def test_foreign_files_that_do_not_fit_are_refused_by_name(
    arrays: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_feature_file(write_npz(tmp_path / "mine.npz", **arrays))
    assert "mine.npz" in str(caught.value)


def test_foreign_files_that_are_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", GOOD)
    (tmp_path / "text.npz").write_text("text")
    whole = write_npz(tmp_path / "whole.npz", features=GOOD, labels=LABELS).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    (tmp_path / "flipped.npz").write_bytes(whole[:150] + bytes([whole[150] ^ 1]) + whole[151:])
    assert read_feature_file(tmp_path / "whole.npz").features.shape == (4, 3)
    for name in ("array.npy", "text.npz", "missing.npz", "cut.npz", "flipped.npz", "."):
        with pytest.raises(UserError, match=name):
            read_feature_file(tmp_path / name)
