"""Depth sets on disk: layouts that are read, and files that are refused or counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.evaluation.depth.data.check import CELLS, check_depths
from siamtransfer.evaluation.depth.data.depth_files import read_depth
from siamtransfer.evaluation.depth.data.layouts import open_depth
from siamtransfer.metrics.depth import DepthRange
from siamtransfer.utils.errors import UserError

SIZE = (12, 16)
METRES = DepthRange(1e-3, 10)


def write_pair(image: Path, depth: Path, metres: float | np.ndarray, scale: float = 1000) -> None:
    """A noisy image, and a depth map of 16 bits."""
    for path in (image, depth):
        path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    values = np.broadcast_to(np.asarray(metres) * scale, SIZE).round().astype(np.uint16)
    Image.fromarray(values).save(depth)


def write_nyu(root: Path, base: str, split: str, scenes: dict[str, float]) -> None:
    """Pairs SCENE/rgb_00045.jpg and SCENE/sync_depth_00045.png, and their list with focal lengths."""
    lines = []
    for scene, metres in scenes.items():
        names = [f"{scene}/rgb_00045.jpg", f"{scene}/sync_depth_00045.png"]
        write_pair(root / base / names[0], root / base / names[1], metres)
        lines.append(f"/{names[0]} /{names[1]} 518.8579\n")
    (root / f"nyudepthv2_{split}_files_with_gt.txt").write_text("".join(lines))


@pytest.mark.parametrize("base", ["", "sync", "train"])
def test_nyu_is_read_by_its_list(tmp_path: Path, base: str) -> None:
    write_nyu(tmp_path, base, "train", {"kitchen_0028b": 1.5, "attic": 2.25})
    images = open_depth("nyu", root=tmp_path)
    assert [float(images.depth(index).mean()) for index in range(2)] == [1.5, 2.25]
    assert images.describe(0).endswith("kitchen_0028b/rgb_00045.jpg")
    assert images.image(0).shape == (*SIZE, 3)
    part = open_depth("nyu", root=tmp_path, count=1)
    assert len(part) == 1 and part.fingerprint != images.fingerprint


def test_nyu_without_a_list_is_all_below_the_split(tmp_path: Path) -> None:
    for scene in ("b", "a"):
        names = [f"test/{scene}/rgb_1.jpg", f"test/{scene}/sync_depth_1.png"]
        write_pair(tmp_path / names[0], tmp_path / names[1], 3)
    images = open_depth("nyu", root=tmp_path, split="test")
    names = [images.describe(index).rpartition("test/")[2] for index in range(2)]
    assert names == ["a/rgb_1.jpg", "b/rgb_1.jpg"]


def test_a_list_may_lack_depth_maps(tmp_path: Path) -> None:
    write_nyu(tmp_path, "", "train", {"a": 1, "b": 2})
    path = tmp_path / "nyudepthv2_train_files_with_gt.txt"
    path.write_text(path.read_text() + "/c/rgb_1.jpg None 518.8579\n")
    images = open_depth("nyu", root=tmp_path)
    assert len(images) == 2 and "1 images" in images.remarks[0]


@pytest.mark.parametrize(
    "layout", ["train/images train/depth", "images/train depth/train", "train/rgb train/depths"]
)
def test_own_folders_with_their_scale(tmp_path: Path, layout: str) -> None:
    image, depth = layout.split()
    for number in range(2):
        pair = tmp_path / image / f"s/{number}.jpg", tmp_path / depth / f"s/{number}.png"
        write_pair(*pair, 2.5 + number, scale=256)
    images = open_depth("depth", root=tmp_path, scale=256)
    assert [float(images.depth(index)[0, 0]) for index in range(2)] == [2.5, 3.5]
    assert images.fingerprint != open_depth("depth", root=tmp_path, scale=1000).fingerprint


def test_the_check_counts_what_is_missing_and_beyond(tmp_path: Path) -> None:
    first = np.full(SIZE, 2.0)
    first[:, :8] = 0  # missing
    second = np.full(SIZE, 4.0)
    second[:6] = 20  # beyond the range
    for number, metres in enumerate((first, second, np.zeros(SIZE))):
        pair = tmp_path / f"train/images/{number}.jpg", tmp_path / f"train/depth/{number}.png"
        write_pair(*pair, metres)
    report = check_depths(open_depth("depth", root=tmp_path), METRES)
    assert (report.pixels, report.missing, report.beyond) == (3 * 192, 96 + 192, 96)
    assert report.mean == pytest.approx(3)
    assert report.mean_map.shape == (CELLS, CELLS)
    left, right = report.mean_map[-1, 0], report.mean_map[-1, -1]
    assert (left, right) == (pytest.approx(4), pytest.approx(3))
    empty, beyond = report.remarks
    assert "1 of 3 depth maps of depth/train have no depth that counts" in empty and "2.png" in empty
    assert "96 depths of depth/train (33.3 %) lie outside" in beyond and "the largest is 20 m in" in beyond


@pytest.mark.parametrize(
    ("metres", "sentence"),
    [
        (0.0, "every pixel of all depth maps of depth/train is 0"),
        (20.0, "the largest is 20 m: give the value"),
    ],
)
def test_sets_without_a_depth_are_refused(tmp_path: Path, metres: float, sentence: str) -> None:
    write_pair(tmp_path / "train/images/0.jpg", tmp_path / "train/depth/0.png", metres)
    with pytest.raises(UserError, match=sentence):
        check_depths(open_depth("depth", root=tmp_path), METRES)


def spoil_eight_bits(path: Path) -> None:
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(path)


def spoil_colours(path: Path) -> None:
    Image.fromarray(np.full((*SIZE, 3), 7, np.uint8)).save(path)


def spoil_size(path: Path) -> None:
    Image.fromarray(np.full((12, 15), 700, np.uint16)).save(path)


def spoil_floats(path: Path) -> None:
    Image.fromarray(np.full(SIZE, 0.5, np.float32)).save(path, format="TIFF")


def spoil_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def spoil_kind(path: Path) -> None:
    path.write_text("no image")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_eight_bits, "has 8 bits, which are 256 depths at most"),
        (spoil_colours, "has 3 channels"),
        (spoil_size, "has 16 x 12 pixels and the depth map .* has 15 x 12"),
        (spoil_floats, "floating-point numbers"),
        (spoil_bytes, "cannot read the depth map"),
        (spoil_kind, "it is no image"),
        (Path.unlink, "1 of the 1 depth maps|have no depth map"),
    ],
)
def test_files_that_are_no_depth_maps_are_named(
    tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    depth = tmp_path / "train/depth/0.png"
    write_pair(tmp_path / "train/images/0.jpg", depth, 2)
    spoil(depth)
    with pytest.raises(UserError, match=sentence):
        check_depths(open_depth("depth", root=tmp_path), METRES)


def test_values_are_read_as_they_stand(tmp_path: Path) -> None:
    values = np.arange(192, dtype=np.uint16).reshape(SIZE) * 341
    Image.fromarray(values).save(tmp_path / "0.png")
    assert np.array_equal(read_depth(str(tmp_path / "0.png")), values)


def test_wrong_layouts_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folders, which is no layout"):
        open_depth("depth", root=tmp_path)
    with pytest.raises(UserError, match="neither a list of the split train"):
        open_depth("nyu", root=tmp_path)
    (tmp_path / "nyu_train.txt").write_text("a/rgb_1.jpg a/sync_depth_1.png 518\n")
    with pytest.raises(UserError, match=r"names a/rgb_1\.jpg, which is in none of the folders"):
        open_depth("nyu", root=tmp_path)
    (tmp_path / "nyu_train.txt").write_text("a/rgb_1.jpg\n")
    with pytest.raises(UserError, match="line 1 has 1 words"):
        open_depth("nyu", root=tmp_path)
    (tmp_path / "test" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match=r"take --data\.name depth"):
        open_depth("nyu", root=tmp_path, split="test")


@pytest.mark.parametrize("turned_map", [True, False])
def test_a_depth_map_is_turned_with_its_photo_whichever_way_it_was_made(tmp_path: Path, turned_map: bool):
    stored = np.arange(1, 13, dtype=np.uint16).reshape(3, 4) * 1000
    exif = Image.Exif()
    exif[0x0112] = 8
    for folder in ("images", "depth"):
        (tmp_path / "val" / folder).mkdir(parents=True)
    Image.fromarray(np.uint8(stored // 100)).convert("RGB").save(tmp_path / "val/images/1.png", exif=exif)
    shown = np.rot90(stored)
    depths = shown if turned_map else stored
    Image.fromarray(np.ascontiguousarray(depths)).save(tmp_path / "val/depth/1.png")
    images = open_depth("depth", root=tmp_path, split="val")
    np.testing.assert_array_equal(images.depth(0), shown / 1000)
    np.testing.assert_array_equal(images.image(0)[..., 0], shown // 100)
    as_stored = open_depth("depth", root=tmp_path, split="val", orientation="stored")
    np.testing.assert_array_equal(as_stored.depth(0), stored / 1000)
    np.testing.assert_array_equal(as_stored.image(0)[..., 0], stored // 100)
