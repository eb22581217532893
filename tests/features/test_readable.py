"""Sets with unreadable images: all are found, and the features of the others are those without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_runs import on_ranks
from torch import nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import ImageSet, open_images
from siamtransfer.data.subset import Subset
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.extract import Pass, Transform, extract, extract_pixels
from siamtransfer.features.readable import FeatureBlock, feature_blocks, find_unreadable

ALONE = Runtime(torch.device("cpu"), torch.float32)
TRANSFORM = Transform(16, 18, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BAD = (0, 3, 4, 7, 12, 18)  # of 19 images: the first, neighbours, in the middle of a batch, the last


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """A labelled folder of 19 images, of which those of BAD cannot be read."""
    folder = tmp_path_factory.mktemp("bad") / "class"
    folder.mkdir()
    for index in range(19):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 20 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    for index in BAD:
        path = folder / f"{index:02}.png"
        path.write_bytes(b"" if index == 7 else path.read_bytes()[:-40])
    (folder / "12.png").unlink()
    (folder / "12.png").symlink_to("nowhere")
    return open_images("folder", root=folder.parent)


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    torch.manual_seed(0)
    return build_backbone("resnet18", width=8, stem="small")


def readable(images: ImageSet) -> np.ndarray:
    return np.setdiff1d(np.arange(len(images)), BAD)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_unreadable_image_is_found_and_named_whatever_the_workers(
    images: ImageSet, workers: int
) -> None:
    found = find_unreadable(images, ALONE, workers=workers)
    assert [image.index for image in found] == list(BAD)
    assert [Path(image.where).name for image in found] == [f"{index:02}.png" for index in BAD]
    assert found[3].why == "the file is empty"
    assert "No such file" in found[4].why


@pytest.mark.parametrize("batch", [1, 4, 13, 50])
@pytest.mark.parametrize("pixels", [False, True], ids=["backbone", "pixels"])
def test_blocks_are_the_features_of_the_readable_images_bit_for_bit(
    images: ImageSet, backbone: nn.Module, batch: int, pixels: bool
) -> None:
    rest = Subset(images, readable(images))
    if pixels:
        expected = extract_pixels(rest, TRANSFORM)
    else:
        expected = extract(backbone, rest, TRANSFORM, ALONE, batch=batch)
    backbone.train()
    options = Pass(ALONE, batch=batch)
    blocks = list(feature_blocks(None if pixels else backbone, images, TRANSFORM, options))
    assert backbone.training
    assert all(len(block.features) <= batch for block in blocks)
    features = torch.cat([block.features for block in blocks if len(block.features)])
    assert features.dtype == torch.float32
    assert torch.equal(features, expected)
    assert [tuple(size) for block in blocks for size in block.sizes] == [
        (20, 20 + index) for index in readable(images)
    ]


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_every_image_is_in_one_block_and_blocks_are_in_the_order_of_the_set(
    images: ImageSet, batch: int
) -> None:
    def of(block: FeatureBlock) -> list[int]:
        return sorted([*block.indices.tolist(), *(image.index for image in block.bad)])

    blocks = list(feature_blocks(None, images, TRANSFORM, Pass(ALONE, batch=batch)))
    assert [index for block in blocks for index in of(block)] == list(range(19))
    assert [image.index for block in blocks for image in block.bad] == list(BAD)


def test_a_set_without_a_readable_image_gives_their_names_alone(images: ImageSet) -> None:
    (block,) = feature_blocks(None, Subset(images, np.array(BAD)), TRANSFORM, Pass(ALONE, batch=4))
    assert len(block.features) == len(block.indices) == 0
    assert [Path(image.where).name for image in block.bad] == [f"{index:02}.png" for index in BAD]


def names_found(runtime: Runtime, folder: str) -> list[str]:
    found = find_unreadable(open_images("folder", root=folder), runtime)
    return [f"{image.index} {Path(image.where).name}" for image in found]


def test_ranks_find_the_same_images_together(images: ImageSet) -> None:
    folder = str(Path(images.describe(0)).parents[1])
    first, second = on_ranks(names_found, folder)
    assert first == second == [f"{index} {index:02}.png" for index in BAD]
