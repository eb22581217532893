"""Python's pickles inside checkpoints: which globals they name, and reading them without running any code.

A pickle can call any function while it is loaded. Three rules prevent this:
- PyTorch's restricted reader makes tensors, numbers, texts, lists and dicts only.
- Objects that old training scripts stored beside their tensors (parsed arguments, OmegaConf, logs) are on a
  list of names. Each is replaced by an `Inert` object, so that no code of theirs runs.
- A pickle of NumPy arrays, which is Detectron2's own format, has a reader that knows arrays only.
"""

from __future__ import annotations

import argparse
import codecs
import collections
import contextlib
import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

# Globals in ordinary checkpoints that PyTorch's restricted reader allows.
_SAFE = re.compile(
    r"collections\.(OrderedDict|Counter)|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+"
    r"|torch\.\w+|torch\.storage\.\w+|torch\.nn\.parameter\.Parameter|_codecs\.encode|(__builtin__|builtins)\.set"
)
# Globals of what public training scripts store beside tensors: settings, logs, paths, and the classes and
# objects that settings name (Lightning keeps every argument of a module as a hyperparameter).
_SETTINGS = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|functools\.partial|enum\.\w+|uuid\.UUID|decimal\.Decimal"
    r"|(omegaconf|easydict|yacs|munch|addict|ml_collections|jsonargparse|hydra|transformers)\.[\w.]+"
    r"|(mmengine|mmcv|pytorch_lightning|lightning|lightning_fabric|lightning_utilities|torchmetrics)\.[\w.]+"
    r"|(classy_vision|vissl|torchvision|timm)\.[\w.]+|torch\._C\._nn\.\w+"
    r"|torch\.(optim|nn\.modules|nn\.functional|nn\.init|utils\.data|distributions)\.[\w.]+"
    r"|typing\.\w+|pathlib\.(_local\.)?\w*Path|datetime\.\w+|numpy\.random\.[\w.]+"
    r"|numpy\.(ndarray|dtype|dtypes\.\w+|_?core\.multiarray\.(scalar|_reconstruct)|bool_?|u?(int|float)\d+)"
)
_MODULES = re.compile(r"torch\.nn\.modules\.|torchvision\.models\.|timm\.(models|layers)\.")
# Those of them that are subclasses of dict; PyTorch's restricted reader fills no others.
_DICTS = re.compile(r".*\.(AttributeDict|EasyDict|\w*Munch|Dict|ConfigDict|CfgNode)")
# Types inside such settings that hold data and run no code.
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


_DEQUE = "collections.deque"


class Inert:
    """Replaces an object of a class on the list of settings. It runs no code of that class, and keeps the
    state that the file has for the object."""

    state: Any

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        inert = super().__new__(cls)
        inert.state = None
        return inert

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes and ignores the arguments of the class that it replaces."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _new_list(*_: Any) -> list[Any]:
    """An empty list; PyTorch's restricted reader fills no other sequence."""
    return []


def as_plain(value: Any, depth: int = 8) -> Any:
    """Settings as plain dicts: those of parsed arguments, of a subclass of dict and of OmegaConf."""
    if isinstance(value, argparse.Namespace):  # of a file that the user trusts
        value = vars(value)
    if isinstance(value, Inert):
        state = value.state if isinstance(value.state, dict) else {}
        value = state.get("_content", state.get("_val", state))
    if isinstance(value, dict) and depth:
        return {key: as_plain(item, depth - 1) for key, item in value.items()}
    return value


def unsafe_globals(path: Path) -> list[str]:
    """The globals in the file's pickles that neither PyTorch's restricted reader nor the list of settings
    allows, sorted; no code of the file runs.

    `torch.serialization.get_unsafe_globals_in_checkpoint` does the same for zip files of pickle protocol 2
    only: it fails on protocol 4 and on damaged files.
    """
    return sorted(
        name
        for name in set(_globals_in(path))
        if not (_SAFE.fullmatch(name) or _SETTINGS.fullmatch(name) or name in _PLAIN or name == _DEQUE)
    )


def modules_in(path: Path) -> list[str]:
    """The classes of networks and layers that the file's pickles name, those of networks first."""
    names = {name for name in _globals_in(path) if _MODULES.match(name)}
    return sorted(names, key=lambda name: (name.startswith("torch."), name))


def read_torch(path: Path, *, mmap: bool, trust: bool) -> Any:
    """torch.load onto the CPU, restricted unless `trust`; settings become `Inert` objects.

    Raises:
        Exception: whatever torch.load raises, a dozen types.
    """
    if trust:
        return torch.load(path, map_location="cpu", weights_only=False, mmap=mmap)
    with torch.serialization.safe_globals(_allowed(_globals_in(path))):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def read_torch_stream(stream: IO[bytes]) -> Any:
    """torch.load of bytes in memory onto the CPU, restricted; settings become `Inert` objects.

    Raises:
        Exception: whatever torch.load raises; UnpicklingError where it holds other Python objects.
    """
    names = list(_globals_of(_pickles_in(stream)))
    stream.seek(0)
    with torch.serialization.safe_globals(_allowed(names)):
        return torch.load(stream, map_location="cpu", weights_only=True)


def _allowed(names: Iterable[str]) -> list[Any]:
    """What PyTorch's restricted reader shall make of those globals that it does not know."""
    settings = {name for name in names if _SETTINGS.fullmatch(name)}
    allowed: list[Any] = [
        (collections.OrderedDict if _DICTS.fullmatch(name) else Inert, name) for name in settings
    ]
    return [*allowed, *((kind, name) for name, kind in _PLAIN.items()), (_new_list, _DEQUE)]


def is_numpy_pickle(path: Path) -> bool:
    """Whether the file is a pickle whose only globals are those of NumPy arrays."""
    names = set(_globals_in(path))
    return any(name.startswith("numpy.") for name in names) and names <= _ARRAY_GLOBALS.keys()


def read_numpy_pickle(path: Path) -> Any:
    """The content of a pickle of NumPy arrays, which become tensors.

    Raises:
        Exception: whatever unpickling raises.
    """
    with path.open("rb") as file:
        return _as_tensors(_ArrayReader(file).load())


class _Array(np.ndarray):
    """An array of numbers. NumPy's own constructor would also make arrays of objects, and read their
    addresses from the file's bytes."""

    def __new__(cls, shape: tuple[int, ...], dtype: Any = float, buffer: Any = None) -> _Array:
        if np.dtype(dtype).hasobject:
            raise pickle.UnpicklingError("it holds an array of Python objects")
        return super().__new__(cls, shape, dtype, buffer)


# What a pickle of NumPy arrays calls, by the names of NumPy 1 and 2.
_ARRAY_GLOBALS: dict[str, Any] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": np.dtype,
    "builtins.bytearray": bytearray,
    "builtins.bytes": bytes,
    "_codecs.encode": codecs.encode,
    "collections.OrderedDict": collections.OrderedDict,
}
for _core in ("numpy.core", "numpy._core"):
    _ARRAY_GLOBALS[f"{_core}.multiarray._reconstruct"] = np.zeros(1).__reduce__()[0]
    _ARRAY_GLOBALS[f"{_core}.multiarray.scalar"] = np.float64(0).__reduce__()[0]
    _ARRAY_GLOBALS[f"{_core}.numeric._frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]


class _ArrayReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if f"{module}.{name}" not in _ARRAY_GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
        return _ARRAY_GLOBALS[f"{module}.{name}"]


def _as_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_tensors(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return torch.from_numpy(np.array(value))
    return value


def _globals_in(path: Path) -> Iterator[str]:
    """Every global that the file's pickles name, as `module.name`."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        yield from _globals_of(_pickles_in(file))


def _globals_of(pickles: Iterator[IO[bytes]]) -> Iterator[str]:
    """The globals of pickles, as far as these can be read: what is no pickle, or damaged, names no more."""
    with contextlib.suppress(ValueError, OSError, zipfile.BadZipFile):
        for stream in pickles:
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


def _pickles_in(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The pickles of a file: one in a zip file, up to five in a row in PyTorch's older format."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    yield io.BytesIO(archive.read(name))
    else:
        file.seek(0)
        for _ in range(5):
            yield file
