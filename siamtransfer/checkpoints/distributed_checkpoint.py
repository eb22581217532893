"""Folders of torch.distributed.checkpoint: `.metadata`, and the tensors in parts, `__RANK_FILE.distcp`.

PyTorch's own reader unpickles `.metadata`, which can run any code. Here the pickle's classes are a list of
names, each replaced by an object that runs nothing, and each part is read by PyTorch's restricted reader.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamtransfer.checkpoints.file_format import TRAINING
from siamtransfer.checkpoints.folders import DISTRIBUTED
from siamtransfer.checkpoints.pickle_survey import survey
from siamtransfer.checkpoints.pickle_values import TooMuch
from siamtransfer.checkpoints.pickles import Inert, read_torch_stream
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.zip_files import verify_zip

_TO_FILE = (
    "if you trust it, make one file of it with "
    "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`"
)


@dataclass(frozen=True)
class _Part:
    """A box of a tensor, and where its bytes are."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int
    length: int


@dataclass(frozen=True)
class _Entry:
    """A tensor, or, without a type, another object in one part.

    Attributes:
        keys: the keys that lead to it in the saved state.
    """

    keys: tuple[Any, ...]
    dtype: torch.dtype | None
    size: tuple[int, ...]
    parts: tuple[_Part, ...]


def read_distributed(folder: Path) -> dict[Any, Any]:
    """The saved state: dicts of tensors on the CPU, as the training nested them.

    The entries of the training (the optimiser's) are not read: their tensors have no numbers (device meta).
    Tensors beside such entries become the entry `state_dict`, and the entries of `app`, which PyTorch's
    tutorials save, stand beside the others.

    Raises:
        UserError: a file is missing or damaged, a tensor is incomplete, or `.metadata` names a class beyond
            those of torch.distributed.checkpoint.
    """
    state: dict[Any, Any] = {}
    try:
        for entry in _entries(folder):
            *parents, last = entry.keys
            inside = state
            for key in parents:
                inside = inside.setdefault(key, {})
            inside[last] = _read_entry(entry)
    except UserError:
        raise
    except TooMuch as error:
        raise UserError(f"{folder / DISTRIBUTED} {error}") from error
    except Exception as error:  # unpickling and torch.load raise a dozen types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        raise UserError(
            f"{folder} is an incomplete or damaged checkpoint of torch.distributed ({reason}): get it again"
        ) from error
    if isinstance(state.get("app"), dict):
        state |= state.pop("app")
    loose = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if loose and len(loose) < len(state) and "state_dict" not in state:
        return {**{key: value for key, value in state.items() if key not in loose}, "state_dict": loose}
    return state


class _MetadataReader(pickle.Unpickler):
    """Knows the classes of torch.distributed.checkpoint by name alone."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("torch", "Size"): tuple,
            ("collections", "OrderedDict"): dict,
            ("torch.serialization", "_get_layout"): _nothing,
        }
        if (module, name) in known:
            return known[module, name]
        if module.startswith(("torch.distributed.", "pathlib")):
            return Inert
        value = getattr(torch, name, None) if module == "torch" else None
        if not isinstance(value, torch.dtype):
            raise pickle.UnpicklingError(f"its .metadata names {module}.{name}, which could run code")
        return value


def _nothing(*_: Any) -> None:
    """The layout of a tensor, which is always strided."""


def _entries(folder: Path) -> list[_Entry]:
    """All that the metadata lists."""
    refuse_special(folder / DISTRIBUTED)
    with (folder / DISTRIBUTED).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        if not survey(file, end).whole:
            raise EOFError("its .metadata is cut or damaged")
        file.seek(0)
        metadata = _fields(_MetadataReader(file).load())
    places = {}
    for index, place in metadata["storage_data"].items():
        name = _fields(index)
        offset = name.get("offset")
        places[name["fqn"], None if offset is None else tuple(offset)] = _fields(place)
    keys: Mapping[str, tuple[Any, ...]] = metadata.get("planner_data") or {}
    entries = []
    for name, stored in metadata["state_dict_metadata"].items():
        fields = _fields(stored)
        where = tuple(keys.get(name, (name,)))
        if "chunks" not in fields:
            place = _part(folder, places[name, None], (), ())
            entries.append(_Entry(where, None, (), (place,)))
            continue
        boxes = [(tuple(box["offsets"]), tuple(box["sizes"])) for box in map(_fields, fields["chunks"])]
        parts = tuple(_part(folder, places[name, offsets], offsets, sizes) for offsets, sizes in boxes)
        entries.append(_Entry(where, _dtype(fields["properties"]), tuple(fields["size"]), parts))
    return entries


def _fields(value: Any) -> dict[str, Any]:
    """The fields of an object of a dataclass; it may have none."""
    if not isinstance(value, Inert) or not isinstance(value.state, dict | None):
        raise ValueError(f"its .metadata holds {type(value).__name__} where an object is expected")
    return value.state or {}


def _dtype(properties: Inert) -> torch.dtype:
    """The type of a tensor, whose properties are a tuple that begins with it."""
    state = properties.state
    dtype = state.get("dtype") if isinstance(state, dict) else state[0]
    if not isinstance(dtype, torch.dtype):
        raise ValueError("its .metadata states no type of a tensor")
    return dtype


def _part(folder: Path, place: Mapping[str, Any], offsets: tuple[int, ...], sizes: tuple[int, ...]) -> _Part:
    name = place["relative_path"]
    if Path(name).name != name:
        raise UserError(f"{folder / DISTRIBUTED} names a file {name!r} outside its folder")
    if place.get("transform_descriptors"):
        raise UserError(f"{folder} holds transformed (compressed or encrypted) tensors: {_TO_FILE}")
    return _Part(offsets, sizes, folder / name, int(place["offset"]), int(place["length"]))


def _read_entry(entry: _Entry) -> Any:
    if entry.dtype is None:
        return _read_object(entry.parts[0])
    if entry.keys[0] in TRAINING or (entry.keys[0] == "app" and entry.keys[1] in TRAINING):
        return torch.empty(entry.size, dtype=entry.dtype, device="meta")
    if sum(math.prod(part.sizes) for part in entry.parts) != math.prod(entry.size):
        raise ValueError(f"the tensor {entry.keys[-1]!r} is incomplete")
    if len(entry.parts) == 1:
        return _read_part(entry, entry.parts[0])
    if math.prod(entry.size) * entry.dtype.itemsize > sum(part.length for part in entry.parts):
        raise ValueError(f"the parts of the tensor {entry.keys[-1]!r} are too short")
    _refuse_overlap(entry)
    whole = torch.empty(entry.size, dtype=entry.dtype)
    for part in entry.parts:
        box = tuple(slice(start, start + size) for start, size in zip(part.offsets, part.sizes, strict=True))
        whole[box] = _read_part(entry, part)
    return whole


def _refuse_overlap(entry: _Entry) -> None:
    """Raises ValueError where two parts of a tensor have a place in common, so that another has none."""
    parts = sorted(entry.parts, key=lambda part: part.offsets)
    for number, part in enumerate(parts):
        for other in parts[number + 1 :]:
            if other.offsets[0] >= part.offsets[0] + part.sizes[0]:
                break  # as all after it, it begins behind the end of this one
            if all(map(_meet, part.offsets, part.sizes, other.offsets, other.sizes)):
                raise ValueError(f"two parts of the tensor {entry.keys[-1]!r} overlap")


def _meet(first: int, length: int, second: int, other_length: int) -> bool:
    """Whether two ranges have a place in common."""
    return first < second + other_length and second < first + length


def _read_part(entry: _Entry, part: _Part) -> Tensor:
    tensor = read_torch_stream(_bytes_of(part))
    if not isinstance(tensor, Tensor) or (tensor.dtype, tuple(tensor.shape)) != (entry.dtype, part.sizes):
        raise ValueError(f"a part of the tensor {entry.keys[-1]!r} is not what .metadata says")
    return tensor


def _read_object(part: _Part) -> Any:
    """A number, a text, a dict ...; what the restricted reader does not make is left out."""
    try:
        return read_torch_stream(_bytes_of(part))
    except pickle.UnpicklingError:
        return Inert()


def _bytes_of(part: _Part) -> io.BytesIO:
    """A part's bytes, whose checksums are right."""
    refuse_special(part.file)
    try:
        with part.file.open("rb") as file:
            if not 0 <= part.start < part.start + part.length <= file.seek(0, os.SEEK_END):
                raise UserError(f"{part.file} is truncated, or .metadata beside it damaged: get both again")
            file.seek(part.start)
            data = io.BytesIO(file.read(part.length))
    except FileNotFoundError as error:
        raise UserError(f"{part.file}, a part of a checkpoint of torch.distributed, is missing") from error
    try:
        verify_zip(data)
    except zipfile.BadZipFile as error:
        raise UserError(f"{part.file} is truncated or damaged ({error}): get it again") from error
    data.seek(0)
    return data
