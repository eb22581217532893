"""The file of a map comes back as it was written, and any other file is refused in a sentence."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.maps import small_map

from siamtransfer.image_map.image_map import ImageMap, is_image_map
from siamtransfer.utils.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "map.npz"
    small_map().write(path)
    return path


def test_a_map_comes_back(file: Path):
    written, read = small_map(), ImageMap.read(file)
    for name in ("positions", "labels", "neighbours", "similarities", "typicality", "indices"):
        array = getattr(read, name)
        np.testing.assert_array_equal(array, getattr(written, name))
        assert array.dtype == getattr(written, name).dtype
    assert read.thumbnails == written.thumbnails
    assert read.class_names == written.class_names
    assert read.names == written.names
    assert read.facts == written.facts
    assert read.digest == written.digest


def test_equal_maps_make_equal_bytes_and_other_maps_another_digest(file: Path, tmp_path: Path):
    small_map().write(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()
    assert small_map(seed=1).digest != small_map().digest


def test_the_content_tells_a_map(file: Path, tmp_path: Path):
    np.savez(tmp_path / "predictions.npz", labels=np.arange(3))
    (tmp_path / "text.npz").write_text("no archive")
    assert is_image_map(file)
    assert not is_image_map(tmp_path / "predictions.npz")
    assert not is_image_map(tmp_path / "text.npz")
    assert not is_image_map(tmp_path / "absent.npz")


def test_other_files_are_refused(file: Path, tmp_path: Path):
    with pytest.raises(UserError, match="there is no map"):
        ImageMap.read(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", labels=np.arange(3))
    with pytest.raises(UserError, match="no map of images"):
        ImageMap.read(tmp_path / "other.npz")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert is_image_map(file)
    with pytest.raises(UserError, match="cannot be read as a map"):
        ImageMap.read(file)
    (tmp_path / "bytes.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(UserError, match="cannot be read as a map"):
        ImageMap.read(tmp_path / "bytes.npz")


def test_a_changed_array_is_noticed(file: Path):
    with np.load(file) as content:
        arrays = dict(content)
    arrays["labels"] = arrays["labels"][::-1]
    np.savez(file, **arrays)
    with pytest.raises(UserError, match="damaged"):
        ImageMap.read(file)


def test_a_later_version_is_named(file: Path):
    with np.load(file) as content:
        arrays = dict(content)
    np.savez(file, **arrays | {"image_map": np.array([2])})
    with pytest.raises(UserError, match=r"version \[2\]"):
        ImageMap.read(file)


def test_an_array_that_needs_pickle_is_not_opened(tmp_path: Path):
    path = tmp_path / "objects.npz"
    np.savez(path, image_map=np.array([print], dtype=object))
    with pytest.raises(UserError, match="cannot be read as a map"):
        ImageMap.read(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.array([0, 1, 9] * 2)}, "labels that are none"),
        ({"neighbours": np.full((6, 2), 6, np.int32)}, "neighbours that are none"),
        ({"positions": np.full((6, 2), np.nan, np.float32)}, "not all finite"),
        ({"positions": np.zeros((6, 2))}, "positions.* of float64"),
        ({"similarities": np.zeros((6, 3), np.float32)}, "do not fit the rest"),
        ({"names": ("one",)}, "1 names of 6 images"),
    ],
)
def test_what_does_not_fit_together_is_no_map(changed: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        small_map(**changed)


def test_the_file_opens_without_this_package(file: Path):
    with zipfile.ZipFile(file) as archive:
        sheet = np.load(io.BytesIO(archive.read("sheet0.npy")), allow_pickle=False)
    assert Image.open(io.BytesIO(sheet.tobytes())).size == (3 * 8, 2 * 8)
