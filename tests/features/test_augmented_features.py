"""Features of augmented views: those of each view by itself, whatever batches, workers and ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_runs import on_ranks
from torch import Tensor, nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.readers import StrictReader
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.augmented import EPOCH, repeat_view, view_features
from siamtransfer.utils.errors import UserError
from siamtransfer.views.dataset import ViewSet, augment_batch
from siamtransfer.views.recipes import recipe

ALONE = Runtime(torch.device("cpu"), torch.float32)
VIEWS = repeat_view(recipe("byol", size=16), 3)


def noise_images() -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 20, 24, 3), dtype=np.uint8)
    return ArrayImages("noise", "train", pixels)


def random_backbone() -> nn.Module:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", width=4, stem="small")
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    return backbone.eval()


@pytest.fixture(scope="module")
def images() -> ArrayImages:
    return noise_images()


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    return random_backbone()


@pytest.fixture(scope="module")
def usual(images: ArrayImages, backbone: nn.Module) -> Tensor:
    return view_features(backbone, images, VIEWS, ALONE)


def test_all_views_are_made_like_the_first() -> None:
    byol = recipe("byol", size=16)
    assert byol.views[0] != byol.views[1]
    repeated = repeat_view(byol, 5)
    assert repeated.views == (byol.views[0],) * 5
    assert replace(repeated, views=byol.views) == byol


def test_they_are_features_of_the_recipes_views_in_the_sets_order(
    images: ArrayImages, backbone: nn.Module, usual: Tensor
) -> None:
    assert (usual.shape, usual.dtype) == ((13, 3, 32), torch.float32)
    drawn = ViewSet(StrictReader(images), VIEWS, 0, 13)
    with torch.no_grad():
        for index in (0, 7, 12):
            augmented = augment_batch(drawn[EPOCH, index], VIEWS)
            expected = torch.cat([backbone(view) for view in augmented])
            torch.testing.assert_close(usual[index], expected, rtol=1e-4, atol=1e-5)
    apart = (usual[:, :, None] - usual[:, None]).norm(dim=3)
    assert (apart[:, ~torch.eye(3, dtype=torch.bool)] > 1e-3).all(), "each view is another one"


@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": 8}, {"batch": 9, "workers": 2}], ids=str)
def test_batches_and_workers_make_no_difference(
    options: dict[str, int], images: ArrayImages, backbone: nn.Module, usual: Tensor
) -> None:
    found = view_features(backbone, images, VIEWS, ALONE, **options)
    torch.testing.assert_close(found, usual, rtol=1e-4, atol=1e-5)


def test_a_part_of_images_and_views_is_a_part_of_all(
    images: ArrayImages, backbone: nn.Module, usual: Tensor
) -> None:
    some = np.array([2, 3, 11])
    found = view_features(backbone, images, repeat_view(VIEWS, 2), ALONE, indices=some)
    torch.testing.assert_close(found, usual[some, :2], rtol=1e-4, atol=1e-5)


def test_the_seed_decides_and_no_training_has_seen_these_views(
    images: ArrayImages, backbone: nn.Module, usual: Tensor
) -> None:
    assert torch.equal(view_features(backbone, images, VIEWS, ALONE), usual)
    assert not torch.allclose(view_features(backbone, images, VIEWS, ALONE, seed=1), usual)
    drawn = ViewSet(StrictReader(images), VIEWS, 0, 13)
    held_out = drawn[EPOCH, 4]
    for epoch in range(50):
        assert (drawn[epoch, 4].params != held_out.params).any()


def on_a_rank(runtime: Runtime) -> Tensor:
    return view_features(random_backbone(), noise_images(), VIEWS, runtime, batch=6)


def test_ranks_share_the_images(usual: Tensor) -> None:
    for found in on_ranks(on_a_rank):
        torch.testing.assert_close(found, usual, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_backbone_is_left_as_it_was(training: bool, images: ArrayImages) -> None:
    backbone = random_backbone().train(training)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    view_features(backbone, images, VIEWS, ALONE)
    assert backbone.training == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_bad_image_and_a_bad_feature_are_told(
    images: ArrayImages, shapes_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"bad")
    backbone = random_backbone()
    with pytest.raises(UserError, match=r"a\.png"):
        view_features(backbone, open_images("flat", root=tmp_path), VIEWS, ALONE)
    backbone.bn1.running_var.fill_(float("nan"))  # type: ignore[union-attr,operator]
    with pytest.raises(UserError, match="not finite for views by byol"):
        view_features(backbone, images, VIEWS, ALONE)
