"""Image files are ordinary files of a bounded size; nothing else is waited for or read."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import image_bombs as bombs

from siamtransfer.data.decode import decode
from siamtransfer.data.first_look import Look, look_at
from siamtransfer.data.folders import FlatFolder
from siamtransfer.data.image_file import MOST_BYTES, byte_limit, open_image, read_file, require_bytes
from siamtransfer.data.orientation import stored_size
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.data.pixel_values import read_pixel_values
from siamtransfer.data.sizes import is_too_large
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault


def _odd_file(kind: str, folder: Path) -> Path:
    path = folder / "odd.jpg"
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a folder":
            path.mkdir()
        case "a socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        case "bytes":
            with path.open("wb") as file:
                file.write(bombs.jpeg())
                file.truncate(100 << 30)  # takes no space
    return path


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "a socket", "bytes"])
def test_what_is_no_ordinary_file_is_unreadable_at_once(kind: str, tmp_path: Path):
    path = _odd_file(kind, tmp_path)
    reason = "107,374,182,400 bytes, more than" if kind == "bytes" else f"it is {kind} and no file"
    began = time.process_time()
    for read in (decode, read_file, open_image, lambda each: stored_size(each, ("JPEG",))):
        with pytest.raises(UnreadableImage, match=reason) as caught:
            read(path)
        assert caught.value.where == str(path)
    with pytest.raises(UserError, match=reason):
        read_pixel_values(str(path), "mask", lambda image, data, where: np.asarray(image))
    assert time.process_time() - began < 5


def test_a_folder_with_odd_files_is_opened_and_looked_at(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "sparse.tif").write_bytes(b"II*\0\x08\0\0\0")
    os.truncate(tmp_path / "sparse.tif", 100 << 30)
    (tmp_path / "plain.jpg").write_bytes(bombs.jpeg())
    images = FlatFolder(tmp_path)
    names = [images.relative_name(index) for index in range(len(images))]
    assert names == ["plain.jpg", "sparse.tif"]
    assert images.skipped == 2
    assert look_at(images, PixelForm()) == {0: Look(), 1: Look()}


def test_bombs_of_the_first_look_are_left_to_the_reader(tmp_path: Path):
    (tmp_path / "texts.png").write_bytes(bombs.png(bombs.chunk(b"tEXt", b"k\0v") * 20_000))
    (tmp_path / "pages.tif").write_bytes(bombs.tiff({273: (4, 2**30, 8)}))
    assert look_at(FlatFolder(tmp_path), PixelForm()) == {0: Look(), 1: Look()}


def test_more_bytes_are_allowed_where_more_pixels_are():
    assert byte_limit(PixelForm()) == MOST_BYTES == 2**30
    assert byte_limit(PixelForm(max_pixels=100)) == MOST_BYTES
    assert byte_limit(PixelForm(max_pixels=10**9)) == 32 * 10**9
    assert byte_limit(PixelForm(channels=13, max_pixels=10**9)) == 104 * 10**9
    require_bytes(MOST_BYTES, "x", PixelForm())
    with pytest.raises(UnreadableImage, match=r"--data\.max-pixels 33554433 allows it") as caught:
        require_bytes(MOST_BYTES + 1, "x", PixelForm())
    assert is_too_large(caught.value.why)
    require_bytes(MOST_BYTES + 1, "x", PixelForm(max_pixels=33_554_433))


def test_a_file_that_is_cut_while_it_is_read_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(bombs.jpeg())
    whole = os.fstat
    longer = os.stat_result((*whole(os.open(path, os.O_RDONLY))[:6], 5_000, 0, 0, 0))
    monkeypatch.setattr("siamtransfer.data.image_file.os.fstat", lambda descriptor: longer)
    with pytest.raises(UnreadableImage, match="became shorter than its 5,000 bytes"):
        read_file(path)


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 300 + ".jpg", "none.jpg", "a.jpg/b.jpg"])
def test_a_name_that_no_file_has_is_unreadable(name: str, tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(bombs.jpeg())
    with pytest.raises(UnreadableImage, match="the file cannot be opened") as caught:
        decode(f"{tmp_path}/{name}")
    assert "\0" not in str(caught.value)


def test_an_ordinary_file_is_read_whole_through_links(tmp_path: Path):
    Image.new("RGB", (5, 4), (9, 9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "c.png").symlink_to("c.png")
    assert read_file(tmp_path / "b.png") == (tmp_path / "a.png").read_bytes()
    assert decode(tmp_path / "b.png").tolist() == [[[9] * 3] * 5] * 4
    with pytest.raises(UnreadableImage, match="Too many levels of symbolic links"):
        read_file(tmp_path / "c.png")
