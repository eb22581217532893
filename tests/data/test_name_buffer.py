"""Names of many files: their order, their memory, and what a buffer of them says."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from siamtransfer.data.folders import ClassFolder, FlatFolder
from siamtransfer.data.imageset import fingerprint_of_arrays
from siamtransfer.data.listing import PathTable, list_images
from siamtransfer.data.name_buffer import NameBuffer, in_runs

NAMES = [b"b.png", b"", "é/图.png".encode(), b"caf\xe9.png"]


def test_a_buffer_is_the_sequence_of_its_names() -> None:
    names = NameBuffer(NAMES[:1])
    names.extend(NAMES[1:])
    names.extend(NameBuffer(NAMES))
    expected = NAMES * 2
    assert len(names) == 8 and list(names) == expected and names[1:6:2] == expected[1:6:2]
    assert [names[index] for index in range(-8, 8)] == expected * 2
    for beyond in (-9, 8):
        with pytest.raises(IndexError):
            names[beyond]
    assert list(in_runs(names, [(6, 8), (0, 0), (1, 3)])) == [*expected[6:8], *expected[1:3]]
    assert not NameBuffer()
    table = PathTable("/top", names)
    assert [os.fsencode(table[index]) for index in range(8)] == [b"/top/" + name for name in expected]
    assert np.shares_memory(table.buffer, names.arrays()[0]) and table.ends.dtype == np.int64


def test_paths_are_in_byte_order_however_deep(tmp_path: Path) -> None:
    dice = random.Random(0)
    parts = ["a", "a b", "a-b", "a.png", "ab", "A", "é", "z"]
    paths = {
        "/".join([*dice.choices(parts, k=dice.randrange(4)), f"{dice.choice(parts)}.jpg"]) for _ in range(60)
    }
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    expected = sorted(map(os.fsencode, paths))
    assert list(list_images(tmp_path).paths) == expected
    assert list(list_images(tmp_path, prefix="of/").paths) == [b"of/" + path for path in expected]
    ends = np.cumsum([0, *map(len, expected)])
    joined = np.frombuffer(b"".join(expected), np.uint8)
    sizes = np.zeros(len(expected), np.int64)
    assert FlatFolder(tmp_path).fingerprint == fingerprint_of_arrays(joined, ends, sizes, None)


def test_a_name_takes_little_more_than_its_bytes(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"c{number:02}").mkdir()
        for picture in range(50):
            os.mknod(tmp_path / f"c{number:02}" / f"{picture:036}.JPEG")
    for kind in (ClassFolder, FlatFolder):
        kind(tmp_path)  # what the first use imports and keeps
        tracemalloc.start()
        try:
            images = kind(tmp_path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        name = len(images.relative_name(0))
        assert peak / len(images) < name + 8 + 8 + 35  # where it ends, a label, and what one folder holds
