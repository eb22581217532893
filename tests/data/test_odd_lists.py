"""Lists that are no plain ones: each is read rightly, or one sentence says what it is."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import image_bombs as bombs
from support.fuzz import examples

from siamtransfer.data.list_file import LONGEST_LINE
from siamtransfer.data.lists import ListedImages
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a folder, a pipe, a device and a socket in it, and one beside it."""
    root = tmp_path_factory.mktemp("lists") / "images"
    root.mkdir()
    for name in ("0.jpg", "1.jpg", "sub/2.jpg", "../beside.jpg"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bombs.jpeg())
    os.mkfifo(root / "pipe.jpg")
    (root / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket.jpg"))
    return root


def _open(images: Path, content: bytes | str, name: str = "list.txt") -> ListedImages:
    path = images.parent / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ListedImages(path, images)


WORDS = (
    *(
        "0.jpg",
        "1.jpg",
        "sub",
        " ",
        ",",
        ";",
        "\t",
        '"',
        "\\",
        "\n",
        "\r",
        "#",
        "/",
        "..",
        "cat",
        "-1",
        "1e9",
    ),
    *("\0", "\xff", "\ud800", "path", "label", "sep=,"),
)
"""Of which lists are put together at random."""

REFUSED: dict[str, tuple[bytes | str, str]] = {
    "commas among blanks": ("0.jpg cat\n1.jpg,dog\n", r"line 2.*a row of a table with commas among other"),
    "blanks among commas": ("0.jpg,cat\n1.jpg dog\n", r"line 1.*a row of a table with commas among other"),
    "an open quote": ('"0.jpg,cat\n1.jpg,dog\n', "a row of a table with commas .* close all quotes"),
    "bars": ("0.jpg|cat\n1.jpg|dog\n", "a row of a table with bars"),
    "single quotes": ("'0.jpg' cat\n'1.jpg' dog\n", "it stands in quotes, so leave them out"),
    "a label first": ("cat 0.jpg\ndog 1.jpg\n", "its label stands before the path"),
    "a header of a plain list": (
        "path label\n0.jpg cat\n1.jpg dog\n",
        "if path label is the header",
    ),
    "an address": ("https://example.com/x.jpg\n", "it is an address, so download the images"),
    "an address of a file": ("file:///data/x.jpg\n", "it is an address"),
    "JSON": ('[{"path": "0.jpg", "label": 1}]', "it is JSON, so write a CSV"),
    "lines of JSON": ('{"path": "0.jpg"}\n{"path": "1.jpg"}\n', "it is JSON, so write a CSV"),
    "YAML": ("- 0.jpg\n- 1.jpg\n", "it is an entry of YAML"),
    "a disk of Windows": ("C:\\data\\0.jpg\n", "it is a path of Windows"),
    "a share of Windows": ("\\\\server\\share\\0.jpg\n", "it is a path of Windows"),
    "backslashes": (
        "none\\0.jpg\nnone\\1.jpg\n",
        "its backslashes, as Windows writes them",
    ),
    "the home folder": ("~/0.jpg\n", "~ is the home folder only for a shell"),
    "a folder": ("sub\n0.jpg\n", "line 1, .*/sub; it is a folder and no file"),
    "the root": ("/\n0.jpg\n", "it is a folder and no file"),
    "a pipe": ("pipe.jpg\n0.jpg\n", "it is a pipe and no file"),
    "a device": ("device.jpg\n0.jpg\n", "it is a device and no file"),
    "a device by its path": ("/dev/zero\n0.jpg\n", "it is a device and no file"),
    "a socket": ("socket.jpg\n0.jpg\n", "it is a socket and no file"),
    "a NUL": ("0.jpg\0cat\n", "is not a text file"),
    "UTF-16 without a mark": ("0.jpg cat\n".encode("utf-16-le"), "UTF-16 without its mark"),
    "half a UTF-16": (b"\xff\xfe0\0.", "begins as UTF-16 and is damaged at byte 4"),
    "latin-1": ("0.jpg café\n".encode("latin-1"), r"line 1 .* is not UTF-8 \(caf\\xe9\)"),
    "a web page": ("<!DOCTYPE html>\n<html>", "is a web page, .*; a list is a text with the path"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "is a pointer of Git LFS"),
    "an archive": (b"\x1f\x8b\x08\0\0", "is a gzip archive; a list is a text"),
    "a label of 401 digits": (
        "0.jpg 1" + "0" * 400 + "\n1.jpg 0",
        "label 10000000000000000000… of 401 di",
    ),
    "a label of 5,001 digits": ("0.jpg 1" + "0" * 5000 + "\n1.jpg 0", "… of 5,001 digits; labels count"),
    "a large label": ("0.jpg 1000000\n", "has the label 1000000; labels count the classes from 0"),
    "a file twice by a detour": ("0.jpg\nsub/../0.jpg\n", r"0\.jpg 2 times, in lines 1 and 2"),
    "a file twice, once whole": ("../images/0.jpg\n0.jpg\n", r"0\.jpg 2 times, in lines 1 and 2"),
    "a long line": ("0.jpg\n" + "x" * (LONGEST_LINE + 1), "line 2 of .* has 131,073 characters"),
    "many columns": ("," * (2 * LONGEST_LINE) + "\n0.jpg", "line 1 of .* has 262,144 characters"),
    "nothing": ("\n \t\n#c\n", "is empty; it has the path of one image on each line"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_list_that_is_none_says_what_it_is(kind: str, images: Path):
    content, reason = REFUSED[kind]
    with pytest.raises(UserError, match=reason) as caught:
        _open(images, content)
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


READ: dict[str, tuple[bytes | str, str, list[str]]] = {
    "a table as text": ("path,label\n0.jpg,cat\n1.jpg,dog\n", "list.txt", ["cat", "dog"]),
    "text as a table": ("0.jpg cat\n1.jpg dog\n", "list.csv", ["cat", "dog"]),
    "backslashes": ("sub\\2.jpg cat\n0.jpg dog\n", "list.txt", ["cat", "dog"]),
    "UTF-16": ("0.jpg cat\n1.jpg dog\n".encode("utf-16"), "list.txt", ["cat", "dog"]),
    "UTF-32": ("0.jpg cat\n1.jpg dog\n".encode("utf-32"), "list.txt", ["cat", "dog"]),
    "a mark": ("\ufeff0.jpg cat\n1.jpg dog\n", "list.txt", ["cat", "dog"]),
    "carriage returns": ("0.jpg cat\r1.jpg dog\r", "list.txt", ["cat", "dog"]),
    "a folder above": ("../beside.jpg cat\n0.jpg dog\n", "list.txt", ["cat", "dog"]),
    "many blanks": ("0.jpg" + " " * 100_000 + "cat\n1.jpg dog\n", "list.txt", ["cat", "dog"]),
    "letters in two forms": ("0.jpg cafe\u0301\n1.jpg caf\xe9\n", "list.txt", ["caf\xe9", "caf\xe9"]),
    "fractions": ("0.jpg 0.0\n1.jpg 1.0\n", "list.txt", ["0.0", "1.0"]),
}


@pytest.mark.parametrize("kind", READ)
def test_a_list_in_another_form_is_read_rightly(kind: str, images: Path):
    content, name, labels = READ[kind]
    found = _open(images, content, name)
    assert found.labels is not None
    assert [found.classes[label] for label in found.labels.tolist()] == labels


@pytest.mark.parametrize("labels", ["0.0 1.0", "-1 0", "1e5 0", "+1 2", "0.5 0.25"])
def test_numbers_that_count_no_classes_are_remarked(labels: str, images: Path):
    first, second = labels.split()
    remarks = _open(images, f"0.jpg {first}\n1.jpg {second}\n").set_remarks
    assert sum("numbers that do not count classes" in remark for remark in remarks) == 1


@pytest.mark.parametrize("labels", ["0 1", "cat 0.0", "007 008"])
def test_other_labels_are_not_remarked_as_numbers(labels: str, images: Path):
    first, second = labels.split()
    remarks = _open(images, f"0.jpg {first}\n1.jpg {second}\n").set_remarks
    assert not any("do not count" in remark for remark in remarks)


def test_a_list_that_is_no_ordinary_file_is_not_waited_for(images: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "sparse.txt").touch()
    os.truncate(tmp_path / "sparse.txt", 50 << 30)
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    began = time.process_time()
    for path, reason in (
        (tmp_path / "pipe.txt", "is a pipe"),
        (Path("/dev/zero"), "is a device"),
        (tmp_path, "is a folder"),
        (tmp_path / "sparse.txt", "53,687,091,200"),
        (tmp_path / "loop.txt", "symbolic links"),
        (tmp_path / "none.txt", "No such file"),
    ):
        with pytest.raises(UserError, match=rf"cannot read the list .*{reason}.*--data\.list_file"):
            ListedImages(path, images)
    assert time.process_time() - began < 5


@given(st.lists(st.sampled_from(WORDS)))
@examples(20)
def test_any_text_is_a_list_or_a_sentence(images: Path, words: list[str]):
    content = "".join(words).encode("utf-8", "surrogatepass")
    for name in ("list.txt", "list.csv"):
        try:
            found = _open(images, content, name)
        except UserError as error:
            assert str(error)
        else:
            assert len(found) > 0
            assert all(Path(found.path(index)).is_file() for index in range(len(found)))
