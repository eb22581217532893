"""Files of arrays that lie about themselves, unpack to much or hold what NumPy does not write."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import examples
from support.sentences import is_sentence

from siamtransfer.features.feature_file import read_feature_file
from siamtransfer.image_map.image_map import ImageMap
from siamtransfer.records.predictions import read_kept
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault

X, Y = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6)
HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n"


def of(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def begin(header: str, numbers: int = 100, version: int = 1, length: int | None = None) -> bytes:
    """An array of this header, with bytes of zero as its numbers."""
    length = len(header) if length is None else length
    size = struct.pack("<H" if version == 1 else "<I", length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + bytes(numbers)


def write(path: Path, features: bytes, labels: bytes = of(Y), method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("features.npy", features)
        archive.writestr("labels.npy", labels)
    return path


def refusal(path: Path, read: Callable[[Path], Any] = read_feature_file) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    assert is_sentence(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (begin(HEADER % ("<f4", "(1000000000, 1000)")), "4,000,000,000,000 bytes, and holds 100"),
        (begin(HEADER % ("<f4", f"({10**30}, 3)")), "its shape is"),
        (begin(HEADER % ("<f4", "(-1, 3)")), "its shape is [-1, 3]"),
        (begin(HEADER % ("|V0", "(10000000000000, 3)"), 0), "0 bytes, and holds 0"),
        (begin(HEADER % ("|O", "(6, 3)")), "holds Python objects"),
        (begin("__import__('os').getcwd()\n"), "its header is not NumPy's"),
        (begin("(" * 5000), "its header is not NumPy's"),
        (begin(" ", version=2, length=2**31), "its header has 2,147,483,648 bytes"),
        (b"\x93NUMPY\x09\x00" + bytes(99), "version 9.0 of the format is not known"),
        (b"\x93NUMPY\x02\x00\x01", "it ends in its header"),
        (b"\x93NUM", "it does not begin as one"),
        (b"", "it does not begin as one"),
    ],
)
def test_an_array_that_is_not_what_it_says(features: bytes, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", features)
    for read in (read_feature_file, read_kept, ImageMap.read):
        assert words in refusal(path, read)
    assert words in refusal(path, lambda path: read_feature_file(path, mapped=True))


def test_a_megabyte_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.npz", of(X)).read_bytes())
    place = content.find(b"PK\x01\x02") + 24  # of the size that the first array unpacks to
    content[place : place + 4] = struct.pack("<I", 2**31)
    (tmp_path / "a.npz").write_bytes(content)
    assert "bytes would unpack to 2,147,48" in refusal(tmp_path / "a.npz")
    zeros = np.zeros((2**16, 3), np.float32)  # little, however well it packs
    found = read_feature_file(write(tmp_path / "a.npz", of(zeros), of(np.zeros(2**16, np.int64))))
    assert found.features.shape == zeros.shape


def test_archives_that_numpy_does_not_write(tmp_path: Path) -> None:
    good = write(tmp_path / "good.npz", of(X)).read_bytes()
    directory, member = good.find(b"PK\x01\x02"), good.find(b"PK\x03\x04")
    encrypted, other = bytearray(good), bytearray(good)
    encrypted[directory + 8] |= 1
    encrypted[member + 6] |= 1
    other[directory + 10] = 99
    (tmp_path / "encrypted.npz").write_bytes(encrypted)
    (tmp_path / "other.npz").write_bytes(other)
    write(tmp_path / "lzma.npz", of(X), method=zipfile.ZIP_LZMA)
    with (
        zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("features.npy", of(X))
        archive.writestr("features.npy", of(2 * X))
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as archive:
        for number in range(4097):
            archive.writestr(f"{number}.npy", b"")
    assert "its array features is encrypted" in refusal(tmp_path / "encrypted.npz")
    for name in ("other.npz", "lzma.npz"):
        assert "packed in a way that numpy does not read" in refusal(tmp_path / name)
    assert "two of its arrays have one name" in refusal(tmp_path / "twice.npz")
    assert "more than the 4,096 arrays" in refusal(tmp_path / "many.npz")


@pytest.mark.parametrize("kind", [">f4", "<f4", "<f2", np.longdouble, ">f8"])
@pytest.mark.parametrize("mapped", [False, True])
def test_every_floating_point_type_and_order_of_bytes_is_read(
    kind: Any, mapped: bool, tmp_path: Path
) -> None:
    for features in (X.astype(kind), np.asfortranarray(X.astype(kind))):
        path = write(tmp_path / "a.npz", of(features), of(Y.astype(">i8")), zipfile.ZIP_STORED)
        found = read_feature_file(path, mapped=mapped)
        np.testing.assert_array_equal(
            np.asarray(found.features, np.float32), X.astype(kind).astype(np.float32)
        )
        assert found.labels is not None
        assert found.labels.tolist() == Y.tolist()


def test_numbers_that_float32_has_no_digits_for_are_refused(tmp_path: Path) -> None:
    for scale in (1e100, 1e-100, 1e-41):
        assert "beyond the range of float32" in refusal(write(tmp_path / "a.npz", of(X * scale)))
    kept = read_feature_file(write(tmp_path / "a.npz", of(X * 1e-36))).features
    np.testing.assert_allclose(np.asarray(kept) / 1e-36, X, rtol=1e-6)
    labels = of(Y.astype(np.uint64) + np.uint64(2**63))
    assert "beyond the integers of 64 bits" in refusal(write(tmp_path / "a.npz", of(X), labels))
    assert "features[6, 0]" in refusal(write(tmp_path / "a.npz", of(X[:, :0])))


@examples(30)
@given(changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_noticed_or_change_nothing(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "changed.npz", of(X), method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content)
    try:
        found = read_feature_file(path)
    except UserError as error:
        assert is_sentence(error)
    else:
        np.testing.assert_array_equal(np.asarray(found.features), X.astype(np.float32))
        assert found.labels is not None
        assert found.labels.tolist() == Y.tolist()
