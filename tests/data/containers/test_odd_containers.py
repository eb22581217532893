"""Containers with claims that are not true, and odd members: images, unreadable ones, or one sentence."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import image_bombs as bombs
from support.damage import damages
from support.thorough import more

from siamtransfer.data import open_images
from siamtransfer.data.image_file import MOST_BYTES
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault


def _zip(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return content.getvalue()


def _parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def _with_header(data: bytes, at: int, field: bytes) -> bytes:
    """A tar whose header at `at` has another size and a checksum that fits."""
    header = bytearray(data[at : at + 512])
    header[124:136] = field.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]


IMAGES = {"a/0.jpg": bombs.jpeg(), "b/1.jpg": bombs.jpeg(8, 9)}
SAMPLES = {"0.jpg": bombs.jpeg(), "0.cls": b"0", "1.jpg": bombs.jpeg(8, 9), "1.cls": b"1"}
ROWS = [{"bytes": bombs.jpeg(), "path": "0.jpg"}, {"bytes": bombs.jpeg(8, 9), "path": "1.jpg"}]
ENDINGS = {"zip": "zip", "shards": "tar", "parquet": "parquet"}


def _place(folder: Path, kind: str, data: bytes) -> Path:
    (folder / f"train.{ENDINGS[kind]}").write_bytes(data)
    return folder


def _claiming(size: int) -> bytes:
    """A zip whose first member claims so many bytes."""
    data = bytearray(_zip(IMAGES))
    entry = data.index(b"PK\1\2")
    data[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    return bytes(data)


def test_a_member_that_claims_gigabytes_is_unreadable_before_it_is_unpacked(tmp_path: Path):
    images = open_images("zip", root=_place(tmp_path, "zip", _claiming(2**32 - 2)))
    with pytest.raises(UnreadableImage, match=r"4,294,967,294 bytes, more than the 1,073,741,824"):
        images.image(0)
    assert images.image(1).shape == (8, 9, 3)


def test_a_member_that_unpacks_to_more_than_it_claims_is_unreadable(tmp_path: Path):
    data = bytearray(_zip({"a/0.jpg": bytes(2**24)}))
    entry = data.index(b"PK\1\2")
    data[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    images = open_images("zip", root=_place(tmp_path, "zip", bytes(data)))
    with pytest.raises(UnreadableImage, match="do not match"):
        images.image(0)


REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a name that is no UTF-8": ("zip", lambda: _bad_name(), "is no zip archive, is truncated"),
    "a name twice": ("zip", lambda: _zip(IMAGES).replace(b"b/1.jpg", b"a/0.jpg"), r"has a/0\.jpg twice"),
    "no archive": ("zip", lambda: bytes(1000), "is no zip archive"),
    "a negative size": ("shards", lambda: _with_header(_tar(SAMPLES), 0, b"\xff" * 12), "have -1 bytes"),
    "a size beyond 64 bits": (
        "shards",
        lambda: _with_header(_tar(SAMPLES), 0, b"\x80" + b"\x7f" * 11),
        "truncated, damaged or no tar file|truncated or damaged",
    ),
    "a large label": ("shards", lambda: _tar(SAMPLES | {"1.cls": bytes(2**24 + 1)}), "16,777,217 bytes"),
    "a long label": ("shards", lambda: _tar(SAMPLES | {"1.cls": b"1" * 200}), "label 1+… of 200 digits"),
    "deep JSON": (
        "shards",
        lambda: _tar({"0.jpg": bombs.jpeg(), "0.json": b'{"label": ' + b"[" * 100_000}),
        r"0\.json in the shard .* is no JSON",
    ),
    "a JSON number of 5,000 digits": (
        "shards",
        lambda: _tar({"0.jpg": bombs.jpeg(), "0.json": b'{"label": ' + b"9" * 5_000 + b"}"}),
        "is no JSON",
    ),
    "text that is no UTF-8": ("parquet", lambda: _bad_text(), "is damaged or of another format"),
    "large labels": (
        "parquet",
        lambda: _parquet(pa.table({"image": ROWS, "label": pa.array([0, 2**64 - 1], pa.uint64())})),
        "has the label 18446744073709551615",
    ),
    "negative labels": ("parquet", lambda: _parquet(pa.table({"image": ROWS, "label": [0, -2]})), "label -2"),
}  # fmt: skip


def _bad_name() -> bytes:
    data = bytearray(_zip({"é/0.jpg": bombs.jpeg()}))
    entry = data.index(b"PK\1\2")
    data[entry + 46] = 0xFF
    return bytes(data)


def _bad_text() -> bytes:
    table = pa.table({"image": ROWS, "label": ["caf~", "x"]})
    content = io.BytesIO()
    pq.write_table(table, content, compression="none", use_dictionary=False, write_statistics=False)
    return content.getvalue().replace(b"caf~", b"caf\xff")


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_container_holds_is_refused(what: str, tmp_path: Path):
    kind, make, reason = REFUSED[what]
    with pytest.raises(UserError, match=reason):
        open_images(kind, root=_place(tmp_path, kind, make()))


@pytest.mark.parametrize("kind", ENDINGS)
def test_a_pipe_is_not_waited_for(kind: str, tmp_path: Path):
    os.mkfifo(tmp_path / f"train.{ENDINGS[kind]}")
    for root in (tmp_path, tmp_path / f"train.{ENDINGS[kind]}"):
        with pytest.raises(UserError):
            open_images(kind, root=root)


def test_labels_in_other_digits_are_numbers_or_names(tmp_path: Path):
    images = open_images("shards", root=_place(tmp_path, "shards", _tar(SAMPLES | {"1.cls": "²".encode()})))
    assert images.labels is not None
    assert list(images.classes) == ["0", "²"]


def test_paths_that_are_no_text_are_the_numbers_of_rows(tmp_path: Path):
    rows = [{"bytes": bombs.jpeg(), "path": 7}, {"bytes": None, "path": None}]
    images = open_images("parquet", root=_place(tmp_path, "parquet", _parquet(pa.table({"image": rows}))))
    assert images.image(0).shape == (16, 16, 3)
    assert images.describe(0).endswith("row-00000000")
    with pytest.raises(UnreadableImage, match="its row holds no bytes"):
        images.image(1)


def test_a_member_of_another_place_is_a_name_and_an_empty_one_unreadable(tmp_path: Path):
    plain = _tar({"/etc/2.jpg": bombs.jpeg(), "x/3.jpg": b""})
    images = open_images("shards", root=_place(tmp_path, "shards", plain))
    assert images.image(0).shape == (16, 16, 3)
    with pytest.raises(UnreadableImage, match="the file is empty"):
        images.image(1)


@pytest.mark.parametrize(
    ("kind", "seed", "count"),
    [("zip", 1, 30), ("shards", 2, 30), ("parquet", 3, 30)]
    + [more(kind, seed, 1000) for seed, kind in enumerate(("zip", "shards", "parquet"), 10)],
)
def test_damaged_containers_give_images_or_sentences(kind: str, seed: int, count: int, tmp_path: Path):
    makers = {"zip": lambda: _zip(IMAGES), "shards": lambda: _tar(SAMPLES)}
    table = pa.table({"image": ROWS, "label": [0, 1]})
    whole = makers[kind]() if kind in makers else _parquet(table)
    opened = 0
    for number, data in enumerate(damages(whole, None, seed=seed, count=count)):
        (folder := tmp_path / str(number)).mkdir()
        try:
            images = open_images(kind, root=_place(folder, kind, data))
        except UserError:
            continue
        opened += 1
        for index in range(len(images)):
            try:
                assert images.image(index).dtype == np.uint8
            except UserError:
                continue
    assert 0 < opened < count


def test_the_limit_of_bytes_is_that_of_files():
    assert MOST_BYTES == 2**30
