"""Odd files of weights: pickles written by hand, tensors that lie about their storage, zip files."""

from __future__ import annotations

import io
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.unexpected import TRACEBACK

HEAD = b"\x80\x02"
"""The beginning of a pickle of protocol 2, as PyTorch writes it."""
ARRAY = b"cnumpy\ndtype\n0"
"""Names a global of NumPy and drops it, so that the pickle counts as one of arrays."""
_SECONDS = 8.0


class Storage(NamedTuple):
    """A storage as PyTorch's pickles name it: its class, its record and its number of elements."""

    kind: Any
    key: Any
    numel: Any


class Claimed:
    """A tensor with these claims, whatever its storage holds."""

    def __init__(self, storage: Storage, offset: Any, size: Any, stride: Any):
        self.claims = storage, offset, size, stride, False, OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.claims  # type: ignore[attr-defined]


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return ("storage", value.kind, value.key, "cpu", value.numel) if isinstance(value, Storage) else None


def pickled(content: Any) -> bytes:
    """The pickle of content with `Claimed` tensors, in protocol 2."""
    file = io.BytesIO()
    _Pickler(file, 2).dump(content)
    return file.getvalue()


def write_zip(
    path: Path, data: bytes, storages: Mapping[str, bytes] | None = None, method: int = zipfile.ZIP_STORED
) -> Path:
    """A file in PyTorch's format with this pickle and these storages."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        for key, stored in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", stored)
        archive.writestr("archive/version", b"3\n")
    return path


def write_claimed(path: Path, state: Mapping[str, Tensor], name: str, claimed: Claimed) -> Path:
    """A file of `state` in which the tensor `name` makes other claims. Its storage is called "x"."""
    storages: dict[str, bytes] = {}
    content: OrderedDict[str, Any] = OrderedDict()
    for number, (key, tensor) in enumerate(state.items()):
        record = "x" if key == name else f"s{number}"
        kind = torch.LongStorage if tensor.dtype == torch.int64 else torch.FloatStorage
        storages[record] = tensor.contiguous().numpy().tobytes()
        content[key] = Claimed(Storage(kind, record, tensor.numel()), 0, tuple(tensor.shape), tensor.stride())
    content[name] = claimed
    return write_zip(path, pickled(content), storages)


def text(value: str) -> bytes:
    """The opcode of a text."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    """The opcode of an integer of up to 255 bytes."""
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def refused(path: Path, read: Callable[[Path], Any] = read_backbone) -> str:
    """The sentence with which a file is refused: one visible line that names it, in bounded time."""
    begin = time.process_time()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as caught:
        patch.setenv(TRACEBACK, "1")  # an error that no line expected fails the test
        read(path)
    seconds, sentence = time.process_time() - begin, str(caught.value)
    assert seconds < _SECONDS, f"{seconds:.1f} s of CPU time before the refusal"
    assert sentence.isprintable() and len(sentence) < 2000, sentence
    assert path.name in sentence
    return sentence
