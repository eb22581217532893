"""The embedded objects: rebuilt byte for byte, balanced, pinned, and with clean silhouettes."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import build_fashion_objects
import numpy as np
import pytest

from siamtransfer.data.scenes import objects as module
from siamtransfer.data.scenes.objects import (
    CLASSES,
    OBJECTS_FILE,
    OBJECTS_SHA256,
    FashionObjects,
    object_silhouettes,
    read_objects,
    silhouette,
)
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file


def write_idx(path: Path, array: np.ndarray) -> str:
    """Writes uint8 `array` as a gzipped idx file; returns the file's SHA-256."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_rebuild_is_byte_for_byte(tmp_path: Path) -> None:
    if not (build_fashion_objects.DEBIAN_FOLDER / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("the official files (Debian's dataset-fashion-mnist) are not installed")
    out = tmp_path / "rebuilt.npz"
    document = build_fashion_objects.main([str(build_fashion_objects.DEBIAN_FOLDER), str(out)])
    assert out.read_bytes() == OBJECTS_FILE.read_bytes()
    assert document["provenance"]["sha256"] == OBJECTS_SHA256
    out.write_bytes(out.read_bytes()[:-1])
    with pytest.raises(SystemExit) as exit_:
        build_fashion_objects.main([str(build_fashion_objects.DEBIAN_FOLDER), str(out), "--check"])
    assert exit_.value.code == 1


def test_the_rule_takes_the_first_of_each_class() -> None:
    labels = np.array([3, 1, 1, 0, 1, 2, 0, 4, 5, 6, 7, 8, 9, 9])
    images, chosen = build_fashion_objects.select_images(np.arange(14), labels, 1)
    assert chosen.tolist() == list(range(10))
    assert images.tolist() == [3, 1, 5, 0, 7, 8, 9, 10, 11, 12]


def test_files_are_read_only_when_official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "train-images-idx3-ubyte.gz"
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    digest = write_idx(tmp_path / name, array)
    with pytest.raises(UserError, match=f"{name} is not the official file"):
        build_fashion_objects.read_official(tmp_path / name)
    monkeypatch.setitem(build_fashion_objects.OFFICIAL_SHA256, name, digest)
    assert np.array_equal(build_fashion_objects.read_official(tmp_path / name), array)
    with pytest.raises(UserError, match="dataset-fashion-mnist"):
        build_fashion_objects.main([str(tmp_path / "absent"), str(tmp_path / "out.npz")])
    assert not (tmp_path / "out.npz").exists()


def test_embedded_file_is_the_pinned_one_and_small() -> None:
    assert digest_of_file(OBJECTS_FILE) == OBJECTS_SHA256
    assert OBJECTS_FILE.stat().st_size <= 3_500_000


@pytest.mark.parametrize(("split", "per_class"), [("train", 700), ("test", 150)])
def test_classes_are_balanced_and_in_order(split: str, per_class: int) -> None:
    objects = read_objects(split)
    assert objects.images.shape == (10 * per_class, 28, 28) and objects.images.dtype == np.uint8
    assert objects.labels.dtype == np.int64
    assert np.array_equal(objects.labels, np.repeat(np.arange(10), per_class))
    assert objects.classes == CLASSES and len(CLASSES) == 10
    with pytest.raises(ValueError, match="read-only"):
        objects.images[0, 0, 0] = 1


def test_splits_share_no_object() -> None:
    train, test = ({image.tobytes() for image in read_objects(split).images} for split in ("train", "test"))
    assert len(train) == 7000 and len(test) == 1500
    assert not train & test


def test_damage_and_wrong_split_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="train and test, not 'val'"):
        read_objects("val")
    damaged = tmp_path / "fashion_objects.npz"
    damaged.write_bytes(OBJECTS_FILE.read_bytes()[:-100])
    monkeypatch.setattr(module, "OBJECTS_FILE", damaged)
    with pytest.raises(UserError, match="damaged"):
        read_objects.__wrapped__("train")
    monkeypatch.setattr(module, "OBJECTS_FILE", tmp_path / "absent.npz")
    with pytest.raises(UserError, match="cannot read"):
        read_objects.__wrapped__("train")


def test_silhouette_drops_specks_and_fills_holes() -> None:
    image = np.zeros((28, 28), np.uint8)
    image[4:20, 6:18] = 200
    image[8:12, 9:14] = 0  # a white print
    expected = np.zeros((28, 28), bool)
    expected[4:20, 6:18] = True
    image[0, 0:9] = 90  # nine pixels: noise
    image[24:, 20:] = 12  # faint: noise
    assert np.array_equal(silhouette(image), expected)
    image[0, 9] = 90  # the tenth pixel makes it a part, for example a strap
    assert silhouette(image)[0, :10].all()


def test_silhouettes_cover_a_sane_part_of_every_object() -> None:
    for split in ("train", "test"):
        masks = object_silhouettes(split)
        objects = read_objects(split)
        assert masks.shape == objects.images.shape
        areas = masks.sum((1, 2))
        assert areas.min() >= 50 and areas.max() < 28 * 28
        # What lies outside is faint or a speck: under one part in a hundred of all the light.
        assert (objects.images * ~masks).sum(dtype=np.int64) < 0.01 * objects.images.sum(dtype=np.int64)


def test_image_set_interface() -> None:
    images = FashionObjects("test")
    assert (images.name, images.split, len(images), images.image_size) == (
        "fashion-objects",
        "test",
        1500,
        28,
    )
    assert images.classes == CLASSES and images.labels is not None
    assert np.array_equal(images.labels, read_objects("test").labels)
    image = images.image(3)
    assert image.shape == (28, 28, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.array_equal(image, np.repeat(read_objects("test").images[3][..., None], 3, axis=2))
    assert images.describe(3) == "fashion-objects/test[3]"
    assert images.fingerprint == FashionObjects("test").fingerprint != FashionObjects("train").fingerprint
