"""Files of text that a user gives: no ordinary file, too large, or in another encoding, is a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.sentences import is_sentence

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import marked_encoding, read_small_text

pytestmark = pytest.mark.fault


def test_utf8_is_read_with_and_without_its_mark(tmp_path: Path) -> None:
    for content in ("é\r\n".encode(), "\ufeffé\r\n".encode()):
        (tmp_path / "a").write_bytes(content)
        assert read_small_text(tmp_path / "a", 8) == "é\r\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1".encode("utf-16"), "is text in UTF-16: save it as UTF-8"),
        ("a: 1".encode("utf-16-be"), "is no text, or text in UTF-16"),
        ("a: 1".encode("utf-32"), "is text in UTF-32"),
        (b"\xfe\xff\0a", "is text in UTF-16"),
        (b"a\n\xe9", "is no UTF-8 text: line 2 holds the byte 0xe9"),
        (bytes(2), "it holds bytes of zero"),
        (b"x" * 101, "has 101 bytes, and a file of this kind has at most 100"),
    ],
)
def test_other_encodings_and_sizes_are_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_small_text(tmp_path / "a", 100)
    assert str(caught.value).startswith(str(tmp_path / "a"))
    assert words in str(caught.value)
    assert is_sentence(caught.value)


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, size in (("large", 101), ("holes", 2**40)):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, size)
    (tmp_path / "loop").symlink_to("loop")
    expected = {
        tmp_path / "pipe": "is a pipe, not a file",
        tmp_path: "is a folder, and a file is needed",
        Path("/dev/zero"): "is a device, not a file",
        tmp_path / "large": "has 101 bytes, and a file of this kind has at most 100",
        tmp_path / "holes": "is a file of holes",
        tmp_path / "loop": "symbolic links",
        tmp_path / "a\0b": "NUL",
        tmp_path / ("a" * 300): "too long",
        tmp_path / "\x1b[31m": r"\x1b[31m cannot be read: No such file",
        tmp_path / "\udcff": r"\xff cannot be read: No such file",
    }
    for path, words in expected.items():
        with pytest.raises(UserError) as caught:
            read_small_text(path, 100)
        assert words in str(caught.value)
        assert is_sentence(caught.value)


def test_a_file_without_a_size_is_read_to_its_bound() -> None:
    assert "Name:" in read_small_text("/proc/self/status", 2**20)
    with pytest.raises(UserError, match="has more than the 10 bytes"):
        read_small_text("/proc/self/status", 10)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_the_encoding_that_a_mark_says_leaves_the_mark_out(encoding: str) -> None:
    text = "grün.png"
    content = (text if encoding == "utf-8-sig" else f"\ufeff{text}").encode(encoding)
    marked = marked_encoding(content)
    assert marked is not None and content.decode(marked) == text
    assert marked_encoding(text.encode()) is None
