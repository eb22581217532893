"""Masks and depth maps are the numbers that were stored, or a sentence: odd kinds, damage, and fuzzing.

python -m pytest tests/data/test_stored_values.py
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.fuzz import examples
from support.sentences import is_sentence

from siamtransfer.evaluation.depth.data.depth_files import read_depth
from siamtransfer.evaluation.depth.data.layouts import open_nyu
from siamtransfer.segmentation.data.class_values import read_class_list
from siamtransfer.segmentation.data.read_mask import read_mask
from siamtransfer.segmentation.data.videos import open_videos
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault
NARROW = (np.arange(64, dtype=np.uint8) % 5).reshape(8, 8)
WIDE = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)


def saved(values: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind, **options)
    return file.getvalue()


def tiff(values: np.ndarray, **tags: Any) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, values, **tags)
    return file.getvalue()


def pgm(white: int, values: np.ndarray = NARROW) -> bytes:
    kind = np.dtype(">u2" if white > 255 else np.uint8)
    return b"P5 # 65535 is no size\n8 8\n%d\n" % white + values.astype(kind).tobytes()


@pytest.mark.parametrize(
    "content",
    [
        saved(NARROW, "PNG"),
        saved(NARROW, "BMP"),
        saved(NARROW, "TIFF"),
        saved(NARROW, "TIFF", compression="tiff_lzw"),
        saved(NARROW, "GIF"),
        pgm(255),
    ],
    ids=["png", "bmp", "tiff", "lzw", "gif", "pgm"],
)
def test_kinds_that_keep_a_mask(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.png").write_bytes(content)
    assert np.array_equal(read_mask(str(tmp_path / "m.png")), NARROW)


@pytest.mark.parametrize("content", [saved(WIDE, "PNG"), saved(WIDE, "TIFF"), pgm(65535, WIDE)])
def test_kinds_that_keep_depths(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.png").write_bytes(content)
    for read in (read_depth, read_mask):
        assert np.array_equal(read(str(tmp_path / "d.png")), WIDE)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: saved(NARROW, "JPEG"), "is a JPEG, whose compression changes values"),
        (lambda: saved(NARROW, "MPO", save_all=True, append_images=[Image.fromarray(NARROW)]), "is a JPEG,"),
        (lambda: saved(NARROW, "WEBP"), "is a WebP, whose"),
        (lambda: saved(NARROW, "JPEG2000", irreversible=True), "is a JPEG 2000, whose"),
        (lambda: saved(WIDE, "JPEG2000"), "is a JPEG 2000, whose"),
        (lambda: saved(NARROW, "TIFF", compression="jpeg"), "is a TIFF compressed by JPEG, which changes"),
        (lambda: tiff(NARROW, photometric="miniswhite"), "is a TIFF in which 0 is white"),
        (lambda: tiff(NARROW > 0, photometric="miniswhite"), "is a TIFF in which 0 is white"),
        (lambda: tiff(WIDE, photometric="miniswhite"), "is a TIFF in which 0 is white"),
        (lambda: tiff(-NARROW.astype(np.int8)), "is a TIFF of signed numbers of 8 bits, of which -1 reads"),
        (lambda: pgm(7), "is a PGM whose white is 7, so that readers stretch"),
        (lambda: pgm(10_000, WIDE // 10), "is a PGM whose white is 10000"),
        (lambda: b"P2 8 8 7\n" + b" ".join(b"%d" % v for v in NARROW.ravel()), "is a PGM whose white is 7"),
    ],
)
def test_kinds_that_change_values_are_refused(tmp_path: Path, make: Callable[[], bytes], says: str) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(make())
    for what, read in (("mask", read_mask), ("depth map", read_depth)):
        with pytest.raises(UserError) as caught:
            read(str(path))
        assert f"the {what} {path} {says}" in str(caught.value)
        assert str(caught.value).endswith(f"; save {what}s as PNG")


KINDS = {
    "png": saved(NARROW, "PNG"),
    "wide": saved(WIDE, "PNG"),
    "tiff": saved(NARROW, "TIFF", compression="tiff_lzw"),
    "raw": saved(WIDE, "TIFF"),
    "bmp": saved(NARROW, "BMP"),
    "pgm": pgm(65535, WIDE),
}


@examples(60)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    place=st.floats(0, 1),
    change=st.one_of(st.none(), st.binary(min_size=1, max_size=4)),
)
def test_damage_is_a_sentence(
    kind: str, place: float, change: bytes | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut anywhere, or with bytes written over; what is read after all has the type of masks."""
    content = KINDS[kind]
    start = int(place * len(content))
    damaged = content[:start] if change is None else content[:start] + change + content[start + len(change) :]
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(damaged)
    for read in (read_mask, read_depth):
        began = time.process_time()
        try:
            values = read(str(path))
        except UserError as error:
            assert is_sentence(error), str(error)
        else:
            assert values.dtype in (np.uint8, np.uint16)
            if change is None:
                original = NARROW if values.dtype == np.uint8 else WIDE
                assert np.array_equal(values, original), (
                    "of a file that is cut everything is there, or nothing"
                )
        assert time.process_time() - began < 5


def test_lists_beside_masks_are_read_with_bounds(tmp_path: Path) -> None:
    """Class lists, lists of videos and of depth maps: pipes, other encodings, endless numbers."""
    path = tmp_path / "classes.txt"
    for content, says in (
        ("a\nb\n".encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b"a\0b\n", "bytes of zero"),
        ("Stra\xdfe\n".encode("latin-1"), "is no UTF-8 text: line 1"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=says):
            read_class_list(path, None)
    path.write_text(f"{'9' * 5000}: dog\n")
    with pytest.raises(UserError, match=r"states the value 9{20}…; masks hold 0 to 65535"):
        read_class_list(path, None)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"cannot read the class list: .* is a pipe"):
        read_class_list(path, None)

    listed = tmp_path / "ImageSets/2017/val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("../../etc\n")
    with pytest.raises(UserError, match=r"val.txt names ../../etc, which lies outside of the set; write the"):
        open_videos(tmp_path)
    listed.unlink()
    os.mkfifo(listed)
    with pytest.raises(UserError, match=r"cannot read the list of videos \(.*val.txt .*is a pipe"):
        open_videos(tmp_path)

    (tmp_path / "train.txt").write_bytes(b"a.jpg a.png 518\nb\0.jpg b.png 518\n")
    with pytest.raises(UserError, match=r"train.txt is UTF-16, or no text"):
        open_nyu(tmp_path, "train", 1000.0)
