"""Odd files of weights: zip files, safetensors, indices, and what is no file at all."""

from __future__ import annotations

import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.checkpoint_files import random_state, same_tensors, save
from support.odd_weights import HEAD, refused

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault

STATE = random_state("resnet18", 2)

# Zip files.


def rewritten(
    path: Path, method: int, more_records: Callable[[zipfile.ZipFile], None] = lambda _: None
) -> Path:
    """The same file of PyTorch, packed anew."""
    with zipfile.ZipFile(path) as source:
        records = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in records.items():
            target.writestr(name, content)
        more_records(target)
    return path


def patched(path: Path, mark: bytes, offset: int, value: bytes) -> Path:
    """The file with a field of each of its headers that begin with `mark` replaced."""
    content, place = bytearray(path.read_bytes()), -1
    while (place := content.find(mark, place + 1)) >= 0:
        content[place + offset : place + offset + len(value)] = value
    path.write_bytes(content)
    return path


def write_names(path: Path, name: str) -> None:
    """A zip file with one file of this name."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"")


CENTRAL = b"PK\x01\x02"
ZIPS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "encrypted": (lambda p: patched(p, CENTRAL, 8, b"\x01\x08"), "is an encrypted zip file"),
    "a method of its own": (lambda p: patched(p, CENTRAL, 10, b"\x63"), "packed by a method"),
    "two sizes": (lambda p: patched(p, CENTRAL, 24, b"\xfe\xff\xff\x7f"), "gives two sizes"),
    "all too large": (lambda p: patched(p, CENTRAL, 20, b"\xfe\xff\xff\x7f" * 2), "more bytes than the file"),
    "a wrong checksum": (lambda p: patched(p, CENTRAL, 16, b"\x01"), "damaged"),
    "elsewhere": (lambda p: patched(p, CENTRAL, 42, b"\xfe\xff\xff\x7f"), "damaged"),
    "a bomb": (
        lambda p: rewritten(p, zipfile.ZIP_DEFLATED, lambda z: z.writestr("archive/data/9", bytes(2**26))),
        "that would unpack to 67,",
    ),
    "packed by LZMA": (lambda p: patched(p, CENTRAL, 10, bytes([zipfile.ZIP_LZMA])), "packed by a method"),
    "one name twice": (
        lambda p: rewritten(p, zipfile.ZIP_STORED, lambda z: z.writestr("x/data.pkl", HEAD + b"N.")),
        "two records have one name",
    ),
    "a cut": (lambda p: p.write_bytes(p.read_bytes()[:-30]), "truncated or damaged"),
    "many pickles": (
        lambda p: rewritten(
            p, zipfile.ZIP_STORED, lambda z: [z.writestr(f"x/{i}.pkl", b"") for i in range(100)] and None
        ),
        "holds 101 pickles",
    ),
    "names with lines": (
        lambda p: write_names(p, "a\nerror: fine\x1b[31m.txt"),
        r"(a\nerror: fine\x1b[31m.txt)",
    ),
    "a large directory": (lambda p: patched(p, b"PK\x05\x06", 12, b"\xfe\xff\xff\x7f"), "directory of"),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_file_that_is_not_pytorchs(tmp_path: Path, kind: str) -> None:
    change, words = ZIPS[kind]
    path = save(STATE, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of the name that stands twice
        change(path)
    assert words in refused(path)


@pytest.mark.parametrize("beside", [{}, {"optimizer": {"a": torch.ones(40_000)}}])
def test_a_compressed_file_has_the_same_weights(tmp_path: Path, beside: dict[str, Any]) -> None:
    path = rewritten(save({"model": STATE, **beside}, tmp_path), zipfile.ZIP_DEFLATED)
    assert same_tensors(read_backbone(path).state, STATE), "never mapped as if it were not compressed"


# Files of safetensors.


def entry(dtype: Any = "F32", shape: Any = (2,), begin: int = 0, end: int = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS: dict[str, tuple[Any, int | None]] = {
    "a length of 2^63": ({"a": entry()}, 2**63),
    "a length of 2^31": ({"a": entry()}, 2**31),
    "a length beyond the file": ({"a": entry()}, 2000),
    "no length": (b"{}", 0),
    "no JSON": (b"{abc}", None),
    "a list": (b"[1]", None),
    "overlapping": ({"a": entry(), "b": entry(begin=4, end=12)}, None),
    "a gap": ({"a": entry(), "b": entry(begin=16, end=24)}, None),
    "beyond the end": ({"a": entry(shape=(200,), end=800)}, None),
    "backwards": ({"a": entry(begin=8, end=0)}, None),
    "a negative place": ({"a": entry(begin=-8, end=0)}, None),
    "an unknown type": ({"a": entry("Q99")}, None),
    "a number as type": ({"a": entry(3)}, None),
    "one name twice": (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":3}', None),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "a": entry()}, None),
    "metadata as a list": ({"__metadata__": [1], "a": entry()}, None),
    "deep": (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", None),
    "a long integer": (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', None),
    "an overflow": ({"a": entry(shape=(2**62, 4))}, None),
    "half a size": ({"a": entry(shape=(2.5,))}, None),
    "a record of nothing": ({"__metadata__": {"siamtransfer": "[1]"}, "a": entry()}, None),
    "a deep record": ({"__metadata__": {"siamtransfer": "[" * 20_000}, "a": entry()}, None),
    "quantised": ({"a": entry("F8_E4M3", (4, 2))}, None),
    "of four bits": ({"a": entry("F4", (16,))}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_an_odd_header_of_safetensors(tmp_path: Path, kind: str) -> None:
    header, length = HEADERS[kind]
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = struct.pack("<Q", len(encoded) if length is None else length) + encoded + bytes(8)
    (tmp_path / "x.safetensors").write_bytes(content)
    refused(tmp_path / "x.safetensors")


# What is no file, or an index of files.


def special(folder: Path, kind: str) -> Path:
    path = folder / "x.pth"
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a loop":
            path.symlink_to("x.pth")
        case "a long name":
            path = folder / ("x" * 300)
        case "a NUL":
            path = Path(f"{folder}/x\0.pth")
        case "a file as folder":
            (folder / "file").touch()
            path = folder / "file" / "x.pth"
        case "holes":
            with path.open("wb") as file:
                file.write(b"\x80\x02]")
                file.truncate(2**40)
        case "a folder":
            path.mkdir()
    return path


@pytest.mark.parametrize(
    "kind", ["a pipe", "a device", "a loop", "a long name", "a NUL", "a file as folder", "holes", "a folder"]
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = special(tmp_path, kind)
    with pytest.raises(UserError) as caught:
        read_backbone(path)
    assert str(caught.value).isprintable()
    assert {"a pipe": "pipe", "a device": "device", "a NUL": "NUL", "holes": "holes"}.get(kind, "x") in str(
        caught.value
    )


@pytest.mark.parametrize(
    "content",
    [
        *(
            {"weight_map": value}
            for value in (["a"], None, {"a": 3}, {"a": ["w"]}, "abc", {"a": "../w.safetensors"})
        ),
        *({"weight_map": {"a": name}} for name in ("", "..", ".metadata", "a\0b", "\udcff", "list.pth")),
        {"weight_map": {"a": "model.safetensors.index.json"}},
        {"weight_map": {"a\nb": "w.safetensors"}},
        [],
        "[" * 20_000,
        '{"a": ' + "9" * 5000 + "}",
    ],
)
def test_an_odd_index_of_files(tmp_path: Path, content: Any) -> None:
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    save([1], tmp_path, "list.pth")
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read_backbone(tmp_path)
    assert str(caught.value).isprintable() and str(tmp_path) in str(caught.value)


def test_a_damaged_version_in_a_zip_directory_is_damage(tmp_path: Path) -> None:
    """zipfile raises NotImplementedError for it, which is no word for a user."""
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"a": torch.ones(3)}}, path)
    content = bytearray(path.read_bytes())
    content[content.rfind(b"PK\x01\x02") + 6] = 255
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pth is truncated or damaged \(zip file version 25\.5\)"):
        read_backbone(path)
