"""Features of a frozen backbone: in order, of all images, without touching it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_runs import on_ranks
from torch import nn
from torchvision.transforms import v2

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.extract import (
    Pass,
    Transform,
    evaluation_transform,
    extract,
    extract_pixels,
    pixel_share,
    pixel_transform,
)
from siamtransfer.utils.errors import UserError

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


@pytest.mark.parametrize(
    ("transform", "images", "expected"),
    [
        (Transform(224, 256, MEAN, STD), 178_000, Transform(32, 37, MEAN, STD)),
        (Transform(224, None, MEAN, STD), 178_000, Transform(32, 32, MEAN, STD)),
        (Transform(224, 256, MEAN, STD), 7_000, Transform(224, 256, MEAN, STD)),
        (Transform(32, None, MEAN, STD), 10**7, Transform(32, None, MEAN, STD)),
        (Transform(96, 110, MEAN, STD), 13_000, Transform(96, 110, MEAN, STD)),
    ],
)
def test_pixels_that_would_fill_the_memory_are_of_small_crops(
    transform: Transform, images: int, expected: Transform
) -> None:
    assert pixel_transform(transform, images) == expected


def test_features_may_enter_a_loss(noise: ArrayImages, backbone: nn.Module) -> None:
    """They are computed in inference mode, whose tensors may not."""
    h = extract(backbone, noise, TRANSFORM, ALONE)
    weight = torch.zeros(h.shape[1], requires_grad=True)
    (h @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, h.sum(dim=0))


class BadImage(ArrayImages):
    """The image 3 cannot be read."""

    def image(self, index: int) -> np.ndarray:
        if index == 3:
            raise UnreadableImage("four.png", "it is bad")
        return super().image(index)


def shares_of_ranks(runtime: Runtime, pixels: np.ndarray) -> tuple[str, int, torch.Tensor, list[int]]:
    """Of a set with a bad image: the error, and the calls of the hook. Of a good one and of one that is
    smaller than the ranks are many: all pixels, and the shape of the share."""
    calls: list[int] = []
    options = Pass(runtime, batch=2, between_batches=lambda: calls.append(1))
    with pytest.raises(UserError) as caught:
        pixel_share(BadImage("bad", "train", pixels), TRANSFORM, options)
    whole = extract_pixels(ArrayImages("good", "train", pixels), TRANSFORM, runtime=runtime)
    few = pixel_share(ArrayImages("few", "train", pixels[:2]), TRANSFORM, options)
    return str(caught.value), len(calls), whole, list(few.shape)


def test_a_bad_image_of_one_rank_ends_the_pass_of_all(noise: ArrayImages) -> None:
    ranks = on_ranks(shares_of_ranks, noise.pixels[:13], world_size=3)
    for error, calls, whole, _ in ranks:
        assert "four.png" in error
        assert calls == 4, "three rounds of 3 x 2 images, and one"
        assert torch.equal(whole, extract_pixels(ArrayImages("good", "train", noise.pixels[:13]), TRANSFORM))
    assert [shape for *_, shape in ranks] == [[1, 768], [1, 768], [0, 768]]
