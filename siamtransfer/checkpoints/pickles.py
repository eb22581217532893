"""Python's pickles inside checkpoints: what they mention, and reading them without running anything.

A pickle can call any function on loading. Three things keep that from happening. PyTorch's restricted reader
makes tensors, numbers, texts, lists and dicts only. What old training scripts kept beside their tensors
(parsed arguments, OmegaConf, logs) is on a list of names, and an `Inert` object stands in for each, so that
nothing of theirs runs either. And a pickle of NumPy arrays, Detectron2's own format, has a reader that knows
arrays only.
"""

from __future__ import annotations

import codecs
import collections
import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

# What the restricted reader of PyTorch allows of what occurs in ordinary checkpoints.
_HARMLESS = re.compile(
    r"collections\.(OrderedDict|Counter)|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+"
    r"|torch\.\w+|torch\.storage\.\w+|torch\.nn\.parameter\.Parameter|_codecs\.encode|(__builtin__|builtins)\.set"
)
# What public training scripts left in their files besides tensors: settings, logs, paths and the like.
_SETTINGS = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|(omegaconf|easydict|yacs|munch|addict|ml_collections)\.[\w.]+"
    r"|(mmengine|mmcv|pytorch_lightning|lightning|lightning_fabric|classy_vision|vissl)\.[\w.]+"
    r"|typing\.\w+|pathlib\.\w*Path|datetime\.\w+|torch\.optim\.lr_scheduler\.\w+"
    r"|numpy\.(ndarray|dtype|dtypes\.\w+|_?core\.multiarray\.(scalar|_reconstruct)|u?(int|float)\d+)"
)
# The types that such settings are made of; they hold data and do nothing.
_PLAIN = {"collections.defaultdict": collections.defaultdict} | {
    f"{module}.{name}": kind
    for module in ("builtins", "__builtin__")
    for name, kind in [
        *((kind.__name__, kind) for kind in (dict, list, tuple, set, frozenset, int, float, str, bool)),
        ("long", int),
        ("unicode", str),
        ("object", object),
    ]
}


class Inert:
    """Stands in for an object of a class on the list of settings: made without calling anything of that
    class, it keeps the state that the file gives it, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Entries of a dict of some special class; nothing reads them."""


def foreign_names(path: Path) -> list[str]:
    """The globals that the file's pickles mention and neither PyTorch's reader nor the list of settings
    allows, sorted; nothing is executed."""
    return sorted(
        name
        for name in set(_mentioned(path))
        if not (_HARMLESS.fullmatch(name) or _SETTINGS.fullmatch(name) or name in _PLAIN)
    )


def read_torch(path: Path, *, mmap: bool, trust: bool) -> Any:
    """torch.load onto the CPU, restricted unless `trust`, with an `Inert` in every setting's place.

    Raises whatever torch.load raises, which is a dozen kinds.
    """
    if trust:
        return torch.load(path, map_location="cpu", weights_only=False, mmap=mmap)
    settings = {name for name in _mentioned(path) if _SETTINGS.fullmatch(name)}
    allowed: list[Any] = [(Inert, name) for name in settings] + [
        (kind, name) for name, kind in _PLAIN.items()
    ]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def holds_arrays(path: Path) -> bool:
    """Whether the file is a pickle of NumPy arrays and nothing else that has a name."""
    names = set(_mentioned(path))
    return any(name.startswith("numpy.") for name in names) and names <= _ARRAYS.keys()


def read_arrays(path: Path) -> Any:
    """The content of a pickle of NumPy arrays, which become tensors. Raises whatever unpickling raises."""
    with path.open("rb") as file:
        return _as_tensors(_ArrayReader(file).load())


class _Array(np.ndarray):
    """An array of numbers. NumPy's own constructor makes arrays of objects too, out of bytes that it takes
    for their addresses."""

    def __new__(cls, shape: tuple[int, ...], dtype: Any = float, buffer: Any = None) -> _Array:
        if np.dtype(dtype).hasobject:
            raise pickle.UnpicklingError("it holds an array of Python objects")
        return super().__new__(cls, shape, dtype, buffer)


# What a pickle of NumPy arrays calls, under the names of NumPy 1 and 2.
_ARRAYS: dict[str, Any] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": np.dtype,
    "builtins.bytearray": bytearray,
    "_codecs.encode": codecs.encode,
    "collections.OrderedDict": collections.OrderedDict,
}
for _core in ("numpy.core", "numpy._core"):
    _ARRAYS[f"{_core}.multiarray._reconstruct"] = np.zeros(1).__reduce__()[0]
    _ARRAYS[f"{_core}.multiarray.scalar"] = np.float64(0).__reduce__()[0]
    _ARRAYS[f"{_core}.numeric._frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]


class _ArrayReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if f"{module}.{name}" not in _ARRAYS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
        return _ARRAYS[f"{module}.{name}"]


def _as_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_tensors(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return torch.from_numpy(np.array(value))
    return value


def _mentioned(path: Path) -> Iterator[str]:
    """Every global that the file's pickles name."""
    try:
        for stream in _pickles(path):
            texts: list[str] = []  # every text in the order in which it comes onto the pickle's stack
            memo: dict[int, str | None] = {}
            last = None
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    yield ".".join(texts[-2:])
                elif opcode.name == "MEMOIZE" or "PUT" in opcode.name:
                    memo[len(memo) if argument is None else argument] = last
                elif "GET" in opcode.name:
                    texts.append(memo.get(int(str(argument))) or "")
                elif isinstance(argument, str):
                    texts.append(argument)
                last = argument if isinstance(argument, str) and opcode.name != "GLOBAL" else None
    except (ValueError, OSError, zipfile.BadZipFile):
        return  # not (or no longer) a pickle: what was seen so far counts


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    """A zip file holds one pickle; older files are up to five in a row."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    yield io.BytesIO(archive.read(name))
    else:
        with path.open("rb") as file:
            for _ in range(5):
                yield file
