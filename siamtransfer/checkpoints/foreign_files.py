"""Files that are no checkpoint of PyTorch: what each is, and the way to one that can be read.

A kind is known by its content: by the bytes that it begins or ends with, by the names inside an archive, or
by the fields of a protobuf message. Only what has no mark of its own is known by its neighbours. A sentence
here continues one that begins with the file's name. folders.py does the same for folders.
"""

from __future__ import annotations

import contextlib
import itertools
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from siamtransfer.checkpoints.message_fields import BYTES, fields_of

_HEAD = 4096
TENSORFLOW = (
    "is a part of a TensorFlow checkpoint (SimCLR's official weights are such): convert it to PyTorch first, "
    "as public SimCLR converters do, and give the .pth file; its images then enter in [0, 1], not normalised"
)
SAVED_MODEL = (
    "is a TensorFlow SavedModel, a program with its weights: load it with TensorFlow, transpose its kernels "
    "from HWIO to OIHW, give them the names of a PyTorch network, and save them with torch.save"
)
KERAS = "Keras: load it there and export its weights to a PyTorch or safetensors file first"
ONNX = (
    "is an ONNX model, a graph for inference: give the PyTorch checkpoint that it was exported from, or save "
    "its initializers (onnx.numpy_helper.to_array) under the network's names with torch.save"
)
COREML = "is a Core ML model, compiled for Apple's devices: give the checkpoint that it was converted from"
OPENVINO = "is a model of OpenVINO, compiled for inference: give the checkpoint that it was converted from"
TENSORRT = "is an engine of TensorRT, compiled for one GPU: give the checkpoint that it was built from"
_ENGINE = "compiled for inference: give the checkpoint that it was converted from"
FLAX = (
    "is a msgpack file, as Flax and JAX write weights: load it with flax.serialization.msgpack_restore, "
    "transpose its kernels from HWIO to OIHW, give them the names of a PyTorch network, and save them with "
    "torch.save"
)
ORBAX = (
    "is a checkpoint of Orbax (JAX): restore it there, transpose its kernels from HWIO to OIHW, give them "
    "the names of a PyTorch network, and save them with torch.save"
)
_CAFFE = "is a model of Caffe: convert it to PyTorch first, and give the .pth file"
_PACKED = "unpack it and give the checkpoint file in it"
_ARCHIVED = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar", ".pkl")
"""Endings of names that come first where an archive's content is listed."""
_PAGE = "is a web page, probably an error page saved under this name: download the file again"
_TORCHSCRIPT = (
    "is a TorchScript program, not a checkpoint: if you trust it, save its weights alone with "
    "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), NEW_FILE)"
)
_EXPORTED = (
    "is a program of torch.export, not a checkpoint: save its weights alone with "
    "torch.save(dict(torch.export.load(FILE).state_dict), NEW_FILE)"
)
_AOTINDUCTOR = "is a package of compiled code (AOTInductor): give the checkpoint that it was compiled from"
_GGML = (
    "is a file of llama.cpp's libraries (GGUF or GGML), usually with quantised weights: give the checkpoint "
    "that it was converted from"
)
_ARRAYS = (
    "which is not a checkpoint of PyTorch. JAX code (ViT's augreg, BiT) writes weights so, and timm reads "
    "those: timm.create_model(NAME, checkpoint_path=FILE), then torch.save(model.state_dict(), NEW_FILE)"
)


# Numbers of protobuf fields: ONNX's ModelProto has none above 26; Core ML's kinds of model are 200 and above.
_ONNX_FIELDS, _COREML_MODELS = 26, 200


class _Mark(NamedTuple):
    """Bytes that files of a kind have at `offset`."""

    beginning: bytes
    sentence: str
    offset: int = 0


_MARKS = (
    _Mark(b"\x89HDF\r\n\x1a\n", f"is an HDF5 file, as of {KERAS}"),
    _Mark(b"\x93NUMPY", f"is an array of NumPy, {_ARRAYS}"),
    _Mark(b"\xfd7zXZ\0", "is compressed with xz: decompress it first, with xz -d"),
    _Mark(b"BZh", "is compressed with bzip2: decompress it first, with bzip2 -d"),
    _Mark(b"\x28\xb5\x2f\xfd", "is compressed with Zstandard: decompress it first, with zstd -d"),
    _Mark(b"7z\xbc\xaf\x27\x1c", f"is a 7-Zip archive: {_PACKED}"),
    _Mark(b"Rar!\x1a\x07", f"is a RAR archive: {_PACKED}"),
    _Mark(b"GGUF", _GGML),
    *(_Mark(magic, _GGML) for magic in (b"lmgg", b"fmgg", b"tjgg", b"algg")),
    *(_Mark(magic, TENSORRT) for magic in (b"ftrt", b"ptrt")),
    _Mark(b"TFL3", f"is a model of TensorFlow Lite, {_ENGINE}", 4),
    *(_Mark(magic, f"is a model of ExecuTorch, {_ENGINE}", 4) for magic in (b"ET12", b"ET13")),
    _Mark(b"\x7fELF", f"is a library of machine code, {_ENGINE}"),
    _Mark(b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1", "is a file of Lua Torch: read it with the package torchfile"),
    _Mark(b"\x12\x01\0\0\0\0\0\0", "is a file of MXNet's arrays: read it with mxnet.nd.load"),
    _Mark(b"MATLAB 5.0 MAT-file", "is a file of MATLAB: read it with scipy.io.loadmat"),
    _Mark(b"\x89PNG\r\n\x1a\n", "is a picture (PNG), not a checkpoint"),
    _Mark(b"\xff\xd8\xff", "is a picture (JPEG), not a checkpoint"),
    _Mark(b"%PDF-", "is a PDF document, not a checkpoint"),
)
# Beginnings of texts, in small letters.
_TEXTS = {
    "version https://git-lfs": (
        "is a Git LFS pointer, not the file it points to: run `git lfs pull` where it was cloned"
    ),
    "<!doctype html": _PAGE,
    "<html": _PAGE,
    "model_checkpoint_path:": TENSORFLOW,
}
# The last eight bytes of a table of LevelDB, which the index of a TensorFlow checkpoint is.
_LEVELDB = bytes.fromhex("57fb808b247547db")


def describe_foreign_file(path: Path) -> str | None:
    """What the file is and how to get one that can be read; None for a file that may be a checkpoint.

    Raises:
        OSError: it cannot be read.
    """
    if path.suffix == ".distcp":
        return (
            "is a part of a checkpoint of torch.distributed: give its folder, with the file .metadata in it"
        )
    with path.open("rb") as file:
        head = file.read(_HEAD)
        for mark in _MARKS:
            if head.startswith(mark.beginning, mark.offset):
                return mark.sentence
        for probe in (_of_gzip, _of_text, _of_msgpack, _of_ending, _of_message):
            sentence = probe(head, file)
            if sentence is not None:
                return sentence
    if head[257:262] == b"ustar":
        return _of_tar(path)
    if head.startswith(b"PK"):
        return _of_zip(path)
    return _of_neighbours(path)


def _of_gzip(head: bytes, _: IO[bytes]) -> str | None:
    """A compressed file, and whether an archive is inside."""
    if not head.startswith(b"\x1f\x8b"):
        return None
    with contextlib.suppress(zlib.error):
        if zlib.decompressobj(wbits=31).decompress(head, 512)[257:262] == b"ustar":
            return f"is a tar archive compressed with gzip: {_PACKED}, with tar -xzf"
    return "is compressed with gzip: decompress it first, with gzip -d"


def _of_text(head: bytes, _: IO[bytes]) -> str | None:
    """A text: of a web server, of a tool, of settings. A pickle of protocol 0 counts as one too."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not just a letter that the end of `head` cuts
            return None
        text = head[: error.start].decode("utf-8-sig")
    if not all(letter.isprintable() or letter in "\r\n\t" for letter in text):
        return None
    stripped = text.strip()
    for beginning, sentence in _TEXTS.items():
        if stripped.lower().startswith(beginning):
            return sentence
    if stripped.startswith("<"):
        if "<net " in text:
            return OPENVINO
        is_page = "<html" in text.lower()
        return (
            _PAGE if is_page else "is an XML document, probably a server's error message: download it again"
        )
    if stripped.startswith(("{", "[")):
        return "is a JSON file, such as settings or an index, not a checkpoint: give the file of the weights"
    beginning = stripped.splitlines()[0][:60] if stripped else ""
    return f"is a text that begins with {beginning!r}, so it is not a checkpoint: get the file again"


def _of_msgpack(head: bytes, _: IO[bytes]) -> str | None:
    """A map whose first key is a word and whose first value a map or an array (an extension type) in turn.
    A pickle begins with 80, an empty map."""
    after_map = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x81 <= head[0] <= 0x8F else 0)
    if not after_map or len(head) < after_map + 2:
        return None
    kind = head[after_map]
    start, length = (after_map + 2, head[after_map + 1]) if kind == 0xD9 else (after_map + 1, kind - 0xA0)
    word, value = head[start : start + max(length, 0)], head[start + max(length, 0) :][:1]
    is_word = (kind == 0xD9 or 0xA1 <= kind <= 0xBF) and word.isascii() and word.decode().isprintable()
    nested = value and (
        0x80 <= value[0] <= 0x8F or value[0] in {0xDE, 0xDF, *range(0xC7, 0xCA), *range(0xD4, 0xD9)}
    )
    return FLAX if is_word and nested else None


def _of_ending(_: bytes, file: IO[bytes]) -> str | None:
    """The index of a TensorFlow checkpoint."""
    file.seek(max(file.seek(0, 2) - len(_LEVELDB), 0))
    return TENSORFLOW if file.read() == _LEVELDB else None


def _of_message(head: bytes, file: IO[bytes]) -> str | None:
    """A model that is one protobuf message, by the numbers of its fields."""
    if head[:1] not in (b"\x08", b"\x0a"):  # all of these begin with their field 1
        return None
    fields = fields_of(file)
    first, numbers = fields.get(1), set(fields)
    if first is None:
        return None
    if first.wire_type == BYTES:
        node = first.beginning[:1] == b"\x0a" and numbers <= {1, 2, 3, 4, 5} and 4 in numbers
        return SAVED_MODEL.replace("SavedModel", "graph") if node else _CAFFE if 100 in numbers else None
    if 7 in numbers and max(numbers) <= _ONNX_FIELDS:
        return ONNX
    if 2 in numbers and max(numbers) >= _COREML_MODELS:
        return COREML
    return SAVED_MODEL if numbers == {1, 2} and first.value == 1 else None


def _of_tar(path: Path) -> str:
    """An archive, or a file of the first versions of PyTorch, which were archives."""
    try:
        with tarfile.open(path) as archive:
            names = list(itertools.islice((member.name for member in archive), 20))
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return f"is a tar archive, and damaged or cut: get it again, then {_PACKED}"
    if {"storages", "tensors"} <= {name.removeprefix("./") for name in names}:
        return (
            "was written by a PyTorch before 0.2: if you trust it, write it anew with "
            "torch.save(torch.load(FILE, weights_only=False, map_location='cpu'), NEW_FILE)"
        )
    return f"is a tar archive ({_listed(names)}): {_PACKED}"


def _of_zip(path: Path) -> str | None:
    """An archive by the names in it; None where it is PyTorch's or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    inner = {name.partition("/")[2] for name in names} | set(names)
    if inner & {"constants.pkl", "bytecode.pkl"}:
        return _TORCHSCRIPT
    if inner & {"archive_format", "serialized_exported_program.json"}:
        compiled = any("data/aotinductor/" in name for name in names)
        return _AOTINDUCTOR if compiled else _EXPORTED
    if any(name.startswith("data/aotinductor/") for name in inner):
        return _AOTINDUCTOR
    if "data.pkl" in inner:
        return None
    if "model.weights.h5" in names:
        return f"is a file of {KERAS}"
    if "Manifest.json" in inner and any("com.apple.CoreML" in name for name in names):
        return COREML
    if names and all(name.endswith(".npy") for name in names):
        arrays = [name.removesuffix(".npy") for name in names]
        if "features" in arrays:
            return f"is a file of features ({_listed(arrays)}), not a checkpoint"
        return f"is a NumPy archive ({_listed(arrays)}), {_ARRAYS}"
    return f"is a zip archive ({_listed(names)}), not a checkpoint of PyTorch: {_PACKED}"


def _of_neighbours(path: Path) -> str | None:
    """A file without any mark of its own, by its name and the file that describes it."""
    if path.suffix == ".index" or ".data-0" in path.name:
        return TENSORFLOW
    network = path.with_suffix(".xml")
    if path.suffix == ".bin" and network.is_file() and describe_foreign_file(network) == OPENVINO:
        return OPENVINO
    return TENSORRT if path.suffix in (".engine", ".plan", ".trt") else None


def _listed(names: Sequence[str]) -> str:
    """The first names, those of checkpoints before the others."""
    first = sorted(names, key=lambda name: not name.endswith(_ARCHIVED))[:3]
    return ", ".join(first) + (" ..." if len(names) > len(first) else "")
