"""The sets of the Visual Task Adaptation Benchmark, from files of the published layouts at tiny size."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.transfer_layouts import picture, write_lines

from siamtransfer.data import ImageSet, open_images, open_labelled
from siamtransfer.data.vtab_arrays import DSPRITES, NORB
from siamtransfer.data.vtab_files import CLEVR_BINS, KITTI_BINS, bin_of
from siamtransfer.utils.errors import UserError


def labels_of(images: ImageSet) -> list[int]:
    assert images.labels is not None and images.labels.dtype == np.int64
    return list(images.labels.tolist())


def both(name: str, root: Path) -> tuple[ImageSet, ImageSet]:
    train, test = open_labelled(name, root=root)
    assert test is not None
    assert (train.name, test.name) == (name, name)
    assert train.fingerprint != test.fingerprint
    for images in (train, test):
        assert images.image(0).dtype == np.uint8 and images.image(0).shape[2] == 3
    return train, test


def test_bins_are_those_of_the_benchmark() -> None:
    """The largest index whose threshold is below the value, as in task_adaptation."""
    for bins, values in (
        (CLEVR_BINS, [7.9, 8.0, 8.01, 9.7, 10, 12.5]),
        (KITTI_BINS, [-1, 8, 8.1, 20.1, 1000.0]),
    ):
        expected = [max(np.flatnonzero(np.array(bins) - value < 0)) for value in values]
        assert [bin_of(value, bins) for value in values] == expected
    assert [bin_of(value, KITTI_BINS) for value in (3, 8, 15, 30, 1000)] == [0, 0, 1, 2, 3]


def write_clevr(root: Path) -> None:
    base = root / "clevr/CLEVR_v1.0"
    for part, counts in (("train", (3, 10, 5)), ("val", (4, 4))):
        scenes = []
        for n, count in enumerate(counts):
            file = f"CLEVR_{part}_{n:06d}.png"
            picture(base / "images" / part / file, n + 50 * (part == "val"))
            objects = [{"pixel_coords": [240, 100, 13.0 - each]} for each in range(count)]
            scenes.append({"image_filename": file, "objects": objects})
        (base / "scenes").mkdir(exist_ok=True)
        (base / f"scenes/CLEVR_{part}_scenes.json").write_text(json.dumps({"scenes": scenes}))


def test_clevr(tmp_path: Path) -> None:
    write_clevr(tmp_path)
    train, test = both("clevr-count", tmp_path)
    assert (labels_of(train), labels_of(test)) == ([0, 7, 2], [1, 1])
    assert train.classes == ("3", "4", "5", "6", "7", "8", "9", "10")
    train, test = both("clevr-distance", tmp_path)
    assert (labels_of(train), labels_of(test)) == ([5, 0, 2], [4, 4]), "the closest are at 11, 4, 9 and 10"
    assert train.classes[0] == "0 to 8" and len(train.classes) == 6


def test_kitti(tmp_path: Path) -> None:
    base = tmp_path / "Kitti/raw/training"
    for n in range(80):
        picture(base / f"image_2/{n:06d}.png", n)
        car = f"Car 0.0 0 -1.5 1 2 3 4 1.5 1.6 3.7 -1.0 1.7 {(5.0, 15.0, 30.0, 0)[n % 4]} 0.1"
        other = "Pedestrian 0.0 0 -1.5 1 2 3 4 1.5 1.6 3.7 -1.0 1.7 2.0 0.1"
        write_lines(base / f"label_2/{n:06d}.txt", [other] if n % 4 == 3 else [car, other])
    train, test = both("kitti-distance", tmp_path)
    assert (len(train), len(test), train.split, test.split) == (72, 8, "train-drawn", "test-drawn")
    for images in (train, test):
        for index, label in enumerate(labels_of(images)):
            assert images.image(index)[0, 0, 0] % 4 == label, "a pedestrian is no vehicle"
    assert sorted(labels_of(test)) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_resisc45_and_folders_of_splits(tmp_path: Path) -> None:
    for n in range(20):
        picture(tmp_path / f"NWPU-RESISC45/{('airport', 'beach')[n % 2]}/{n}.jpg", n)
    train, test = both("resisc45", tmp_path)
    assert (len(train), len(test), labels_of(test)) == (16, 4, [0, 0, 1, 1])
    for part, count in (("train", 10), ("validation", 5), ("test", 5)):
        for n in range(count):
            picture(tmp_path / f"retinopathy/{part}/{n % 5}/{n}.jpeg", n)
    train, test = both("retinopathy", tmp_path)
    assert (len(train), len(test), labels_of(test)) == (15, 5, [0, 1, 2, 3, 4])
    for part in ("train", "test"):
        for n in range(5):
            picture(tmp_path / f"dmlab/{part}/{n}/{n}.png", n)
    with pytest.raises(UserError, match=r"dmlab has 6 classes, and .*dmlab has 5 class folders in train"):
        open_images("dmlab", root=tmp_path)
    (tmp_path / "dmlab/test").rename(tmp_path / "dmlab/else")
    with pytest.raises(UserError, match=r"folders train, validation and test .* no .*dmlab/test"):
        open_images("dmlab", root=tmp_path, split="test")


def write_pcam(root: Path) -> None:
    (root / "pcam").mkdir(parents=True)
    for part, count in (("train", 5), ("valid", 3), ("test", 2)):
        base = root / f"pcam/camelyonpatch_level_2_split_{part}"
        pixels = (
            np.full((count, 96, 96, 3), len(part), np.uint8)
            + np.arange(count, dtype=np.uint8)[:, None, None, None]
        )
        with h5py.File(f"{base}_x.h5", "w") as file:
            file["x"] = pixels
        with h5py.File(f"{base}_y.h5", "w") as file:
            file["y"] = (np.arange(count) % 2).reshape(-1, 1, 1, 1).astype(np.uint8)


def test_pcam(tmp_path: Path) -> None:
    write_pcam(tmp_path)
    train, test = both("pcam", tmp_path)
    assert (labels_of(train), labels_of(test)) == ([0, 1, 0, 1, 0, 0, 1, 0], [0, 1])
    assert [int(train.image(n)[0, 0, 0]) for n in range(8)] == [5, 6, 7, 8, 9, 5, 6, 7]
    again = pickle.loads(pickle.dumps(train))  # as a worker that is not forked gets it
    assert (again.image(6) == train.image(6)).all() and again.fingerprint == train.fingerprint
    write_pcam(tmp_path / "damaged")
    with h5py.File(tmp_path / "damaged/pcam/camelyonpatch_level_2_split_test_x.h5", "w") as file:
        file["x"] = np.zeros((3, 96, 96, 3), np.uint8)
    with pytest.raises(UserError, match=r"pcam is not in .* or is damaged"):
        open_images("pcam", root=tmp_path / "damaged", split="test")


def test_dsprites(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 2, (640, 64, 64), dtype=np.uint8)
    latents = np.zeros((640, 6), np.int64)
    latents[:, 3], latents[:, 4] = np.arange(640) % 40, np.arange(640) % 32
    np.savez_compressed(tmp_path / DSPRITES, imgs=pixels, latents_classes=latents)
    for name, column, values in (("dsprites-orientation", 3, 40), ("dsprites-location", 4, 32)):
        train, test = both(name, tmp_path)
        assert (len(train), len(test), len(train.classes)) == (576, 64, 16)
        numbers = []
        for images in (train, test):
            for index, label in enumerate(labels_of(images)):
                number = int(images.describe(index).partition("[")[2].rstrip("]"))
                assert label == int(latents[number, column] // (values / 16))
                numbers.append(number)
            assert (
                images.image(0) == 255 * pixels[int(images.describe(0)[len(name) + 1 : -1]), :, :, None]
            ).all()
        assert sorted(numbers) == list(range(640))
    np.savez_compressed(tmp_path / DSPRITES, imgs=pixels[:9], latents_classes=latents)
    with pytest.raises(UserError, match=r"dsprites-location is not in .* or is damaged"):
        open_images("dsprites-location", root=tmp_path)


def norb(array: np.ndarray) -> bytes:
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[array.dtype.name]
    sizes = [*array.shape, *[1] * (3 - array.ndim)]
    return np.array([magic, array.ndim, *sizes], "<i4").tobytes() + array.tobytes()


def test_smallnorb(tmp_path: Path) -> None:
    pixels = np.arange(4 * 2 * 96 * 96, dtype=np.uint8).reshape(4, 2, 96, 96)
    info = np.array([[4, 0, 0, 0], [6, 8, 34, 1], [7, 3, 10, 5], [9, 1, 2, 0]], np.int32)
    for split, base in NORB.items():
        for kind, array in (("dat", pixels), ("info", info)):
            part = array if split == "train" else array[:2]
            path = tmp_path / f"{base}-{kind}.mat"
            if split == "train":
                path.write_bytes(norb(part))
            else:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(norb(part)))
    train, test = both("smallnorb-azimuth", tmp_path)
    assert (labels_of(train), labels_of(test), len(train.classes)) == ([0, 17, 5, 1], [0, 17], 18)
    assert (train.image(1)[..., 0] == pixels[1, 0]).all(), "the left camera"
    assert train.classes[5] == "100 degrees"
    train, test = both("smallnorb-elevation", tmp_path)
    assert (labels_of(train), train.classes[3]) == ([0, 8, 3, 1], "45 degrees")
    assert open_images("smallnorb-elevation", root=tmp_path, channels=1).image(0).shape == (96, 96, 1)
    (tmp_path / f"{NORB['train']}-info.mat").write_bytes(norb(info + 40))
    with pytest.raises(UserError, match="has labels from 40 to 48, and there are 9 classes"):
        open_images("smallnorb-elevation", root=tmp_path)
    (tmp_path / f"{NORB['train']}-info.mat").write_bytes(b"no")
    with pytest.raises(UserError, match=r"smallnorb-elevation is not in .* or is damaged"):
        open_images("smallnorb-elevation", root=tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *("pcam", "resisc45", "retinopathy", "clevr-count", "clevr-distance", "dmlab", "kitti-distance"),
        *("dsprites-location", "dsprites-orientation", "smallnorb-azimuth", "smallnorb-elevation"),
    ],
)
def test_a_folder_without_the_set_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{name} is not in .* or is damaged; name the folder above"):
        open_images(name, root=tmp_path)
