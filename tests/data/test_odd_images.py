"""Damaged files of each format are an image or unreadable, and false claims cost no memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import image_bombs as bombs
from support.dicom_files import dicom
from support.fuzz import examples

from siamtransfer.data.decode import decode
from siamtransfer.data.unreadable import UnreadableImage, WrongChannels

pytestmark = pytest.mark.fault

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8))


def _saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PHOTO.save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "jpg": _saved("JPEG"),
    "progressive": _saved("JPEG", progressive=True),
    "png": _saved("PNG"),
    "tif": _saved("TIFF"),
    "packed": _saved("TIFF", compression="tiff_lzw"),
    "gif": _saved("GIF"),
    "webp": _saved("WEBP"),
    "bmp": _saved("BMP"),
    "jp2": _saved("JPEG2000"),
    "dcm": dicom(np.arange(99, dtype=np.uint16).reshape(9, 11), 12),
}


@given(st.sampled_from(sorted(FILES)), st.data())
@examples(80)
def test_a_damaged_file_of_any_format_is_an_image_or_unreadable(name: str, drawn: st.DataObject):
    """Other bytes, most in the headers, all ones or zeros, a piece of another file, a cut."""
    data = bytearray(FILES[name])
    assert decode(bytes(data), name).shape == (9, 11, 3)
    place = st.one_of(st.integers(0, min(64, len(data) - 1)), st.integers(0, len(data) - 1))
    for _ in range(drawn.draw(st.integers(0, 3))):
        at = drawn.draw(place)
        piece = drawn.draw(
            st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from([b"\xff" * 4, bytes(4)]))
        )
        data[at : at + len(piece)] = piece
    if drawn.draw(st.booleans()):
        other = FILES[drawn.draw(st.sampled_from(sorted(FILES)))]
        at, start = drawn.draw(place), drawn.draw(st.integers(0, len(other) - 1))
        data[at : at + 40] = other[start : start + 40]
    del data[drawn.draw(st.one_of(st.just(len(data)), st.integers(1, len(data)))) :]
    try:
        pixels = decode(bytes(data), name)
    except (UnreadableImage, WrongChannels) as refused:
        assert name in str(refused) and "\n" not in str(refused)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def _claiming_heic() -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(PHOTO).save(buffer)
    data = buffer.getvalue()
    at = data.index(b"ispe") + 8
    return data[:at] + (60_000).to_bytes(4, "big") * 2 + data[at + 8 :]


_SHORT_OF_MEMORY = """
import resource, sys
import pillow_heif, pydicom, numpy
from siamtransfer.data.decode import decode
from siamtransfer.data.unreadable import UnreadableImage
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 2**27
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        decode(path)
    except UnreadableImage as unreadable:
        print(unreadable.why)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_false_claims_are_refused_with_little_memory(tmp_path: Path):
    """In a process that may take 128 MiB more: claims of 3.6 gigapixels, a profile of 256 MiB, 100 GB of
    holes. The limit counts what is asked for, so that memory which is never written counts, too."""
    values = np.zeros((9, 11), np.uint16)
    contents = {
        "a.heic": (_claiming_heic(), "60000x60000"),
        "a.dcm": (dicom(values, 12, Rows=60_000, Columns=60_000), "3,600,000,000 pixels"),
        "a.png": (bombs.png(bombs.chunk(b"iCCP", b"k\0\0" + bombs.zeros(2**28))), "MAX_TEXT_CHUNK"),
    }
    for name, (data, _) in contents.items():
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "a.jpg").open("wb") as file:
        os.truncate(file.fileno(), 10**11)
    paths = [str(tmp_path / name) for name in (*contents, "a.jpg")]
    command = [sys.executable, "-c", _SHORT_OF_MEMORY, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 4), done.stderr
    for line, expected in zip(lines, [*(reason for _, reason in contents.values()), "bytes"], strict=True):
        assert expected in line
