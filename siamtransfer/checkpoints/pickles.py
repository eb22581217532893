"""Python's pickles inside checkpoints: which globals they name, and reading them without running any code.

A pickle can call any function while it is loaded. Three rules prevent this:
- PyTorch's restricted reader makes tensors, numbers, texts, lists and dicts only.
- Objects that old training scripts stored beside their tensors (parsed arguments, OmegaConf, logs) are on a
  list of names. Each is replaced by an `Inert` object, so that no code of theirs runs.
- A pickle of NumPy arrays, which is Detectron2's own format, has a reader that knows arrays only
  (stored_arrays.py).

Before any of them reads, pickle_survey.py follows the pickle's opcodes: what would take too much memory or
time is refused. After it, content_bounds.py sees that the content is a tree.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import io
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from siamtransfer.checkpoints.content_bounds import refuse_tangled
from siamtransfer.checkpoints.pickle_survey import survey
from siamtransfer.checkpoints.stored_arrays import GLOBALS as _ARRAY_GLOBALS
from siamtransfer.checkpoints.stored_arrays import read_stored_arrays

# Globals in ordinary checkpoints that PyTorch's restricted reader allows.
_SAFE = re.compile(
    r"collections\.(OrderedDict|Counter)|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+"
    r"|torch\.\w+|torch\.storage\.\w+|torch\.nn\.parameter\.Parameter|_codecs\.encode|(__builtin__|builtins)\.set"
    r"|torch\.serialization\._get_layout"
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
    return _as_plain(value, depth, {})


def _as_plain(value: Any, depth: int, done: dict[tuple[int, int], Any]) -> Any:
    """`as_plain`, which meets each object at each depth once: those of OmegaConf refer to their parents."""
    if isinstance(value, argparse.Namespace):  # of a file that the user trusts
        value = vars(value)
    if isinstance(value, Inert):
        state = value.state if isinstance(value.state, dict) else {}
        value = state.get("_content", state.get("_val", state))
    if isinstance(value, dict) and depth:
        place = id(value), depth
        if place not in done:
            done[place] = {key: _as_plain(item, depth - 1, done) for key, item in value.items()}
        return done[place]
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
        TooMuch: it asks for more than the bounds, or holds no tree.
        Exception: whatever torch.load raises, a dozen types.
    """
    if trust:
        content = torch.load(path, map_location="cpu", weights_only=False, mmap=mmap)
    else:
        surveyed = _surveyed(path)
        if not surveyed.whole:
            raise EOFError("its pickle is cut or damaged")
        with torch.serialization.safe_globals(_allowed(surveyed.names)):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    refuse_tangled(content)
    return content


def read_torch_stream(stream: IO[bytes]) -> Any:
    """torch.load of bytes in memory onto the CPU, restricted; settings become `Inert` objects.

    Raises:
        Exception: whatever torch.load raises; UnpicklingError where it holds other Python objects.
    """
    surveyed = _survey_pickles(stream)
    if not surveyed.whole:
        raise EOFError("its pickle is cut or damaged")
    stream.seek(0)
    with torch.serialization.safe_globals(_allowed(surveyed.names)):
        content = torch.load(stream, map_location="cpu", weights_only=True)
    refuse_tangled(content)
    return content


def _allowed(names: Iterable[str]) -> list[Any]:
    """What PyTorch's restricted reader shall make of those globals that it does not know."""
    settings = {name for name in names if _SETTINGS.fullmatch(name)}
    allowed: list[Any] = [
        (collections.OrderedDict if _DICTS.fullmatch(name) else Inert, name) for name in settings
    ]
    return [*allowed, *((kind, name) for name, kind in _PLAIN.items()), (_new_list, _DEQUE)]


def is_numpy_pickle(path: Path) -> bool:
    """Whether the file is a pickle whose only globals are those of NumPy arrays."""
    names = {name.replace("__builtin__.", "builtins.") for name in _globals_in(path)}
    return any(name.startswith("numpy.") for name in names) and names <= _ARRAY_GLOBALS.keys()


def read_numpy_pickle(path: Path) -> Any:
    """The content of a pickle of NumPy arrays, which become tensors.

    Raises:
        Exception: whatever unpickling raises.
    """
    if not _surveyed(path).whole:
        raise EOFError("its pickle is cut or damaged")
    with path.open("rb") as file:
        return read_stored_arrays(file)


class _Surveyed(NamedTuple):
    """The globals of all pickles of a file, and whether each comes to its end."""

    names: tuple[str, ...]
    whole: bool


def _globals_in(path: Path) -> tuple[str, ...]:
    """Every global that the file's pickles name, as `module.name`; of a file that cannot be read none.

    Raises:
        TooMuch: a pickle asks for more than the bounds.
    """
    with contextlib.suppress(OSError):
        return _surveyed(path).names
    return ()


def _surveyed(path: Path) -> _Surveyed:
    """The survey of a file, which is made once for as long as the file stays what it is."""
    status = path.stat()
    return _survey_of(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _survey_of(path: Path, *_: int) -> _Surveyed:
    with path.open("rb") as file:
        return _survey_pickles(file)


def _survey_pickles(file: IO[bytes]) -> _Surveyed:
    """Follows the pickles of a file: all in a zip file, up to five in a row in PyTorch's older format. What
    is no pickle, or damaged, names no more.

    Raises:
        TooMuch: a pickle asks for more than the bounds.
    """
    names: list[str] = []
    whole, steps = False, 0
    with contextlib.suppress(ValueError, OSError, zipfile.BadZipFile, NotImplementedError):
        for number, (stream, end) in enumerate(_pickles_in(file)):
            found = survey(stream, end, steps)
            steps = found.steps
            names += found.names
            whole = found.whole if number == 0 else whole
            if not found.whole:
                break
    return _Surveyed(tuple(names), whole)


def _pickles_in(file: IO[bytes]) -> Iterator[tuple[IO[bytes], int]]:
    """The pickles of a file, each with the byte at which it has to end."""
    end = file.seek(0, os.SEEK_END)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for record in archive.infolist():
                if record.filename.endswith(".pkl"):
                    record.CRC = None  # type: ignore[assignment]  # absent in some files; compared elsewhere
                    yield io.BytesIO(archive.read(record)), record.file_size
    else:
        file.seek(0)
        for _ in range(5):
            yield file, end
