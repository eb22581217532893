"""Opens a checkpoint file of any kind without running code in it, or says in one sentence what the file is.

The result holds tensors, numbers, texts, lists and dicts. A file that would run Python code while it is
loaded is refused, with the names of what it would call, unless the user trusts it (see pickles.py).
"""

from __future__ import annotations

import contextlib
import json
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from siamtransfer.checkpoints.content_bounds import refuse_tangled
from siamtransfer.checkpoints.distributed_checkpoint import read_distributed
from siamtransfer.checkpoints.folders import DISTRIBUTED, INDEX, weights_in_folder
from siamtransfer.checkpoints.foreign_content import HAIKU, WHOLE_MODEL, size_of_model
from siamtransfer.checkpoints.foreign_files import describe_foreign_file
from siamtransfer.checkpoints.pickle_values import TooMuch
from siamtransfer.checkpoints.pickles import (
    Inert,
    is_numpy_pickle,
    modules_in,
    read_numpy_pickle,
    read_torch,
    unsafe_globals,
)
from siamtransfer.checkpoints.state_names import verify_name
from siamtransfer.checkpoints.zip_records import refuse_directory, refuse_records
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.json_file import read_json
from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.text import printable, sentence
from siamtransfer.utils.zip_files import verify_zip

_JAX = ("jax", "jaxlib", "haiku", "dm_haiku", "dill", "byol")
# The share of a file from which on it is read as a whole, and the bytes of safetensors mapped at once.
_MOST, _MAPPED_BYTES = 0.75, 2**27
MOST_HEADER = 2**25
"""Bytes of the header of a safetensors file, which takes about a hundred for each tensor."""
_QUANTISERS = ("torchao", "bitsandbytes", "quanto", "optimum")


class OpenedFile(NamedTuple):
    """The content of a file; `mapped` where its tensors are a view of the file's bytes on the disk."""

    content: Any
    mapped: bool = False


def read_content(path: Path, *, trust_pickle: bool = False) -> Any:
    """The content of a file, see `open_file`."""
    return open_file(path, trust_pickle=trust_pickle).content


def open_file(path: Path, *, trust_pickle: bool = False) -> OpenedFile:
    """The content of a .pth, .pt, .ckpt, .safetensors or Detectron2's .pkl file, whatever its suffix, or of a
    folder of Hugging Face or of torch.distributed.checkpoint.

    Tensors are on the CPU; NumPy arrays become tensors. With `trust_pickle` the file may hold any Python
    object, and may run any code while it is loaded.

    A zip file (PyTorch's format since 1.6) most of which is a training's state is mapped into memory, so that
    tensors which nobody uses take none; changes of them do not reach the file. PyTorch stores a checksum with
    every tensor and never compares it; here it is compared first.

    Raises:
        UserError: there is no such file, it is damaged, it is something else, or it holds Python objects.
    """
    try:
        return _open(path, trust_pickle=trust_pickle)
    except TooMuch as error:
        raise UserError(sentence(f"{path} {error}")) from error
    except UserError as error:
        if str(error).isprintable():
            raise
        raise UserError(sentence(str(error))) from error  # names in a file may hold anything


def _open(path: Path, *, trust_pickle: bool) -> OpenedFile:
    """`open_file`, with names as they stand in the file."""
    refuse_special(path)
    if path.is_dir():
        path = weights_in_folder(path)
        refuse_special(path)
    if path.name == DISTRIBUTED:
        return OpenedFile(read_distributed(path.parent))
    if path.name.endswith(INDEX):
        return OpenedFile(_read_split(path, trust_pickle=trust_pickle))
    head = _first_bytes(path)
    if _is_safetensors(head):
        return OpenedFile(_read_safetensors(path))
    if head.startswith(b"PK"):
        with contextlib.suppress(zipfile.BadZipFile):  # a cut file is described below
            refuse_directory(path)
    foreign = describe_foreign_file(path)
    if foreign is not None:
        raise UserError(f"{path} {foreign}")
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise UserError(f"{path} is not a checkpoint: it is neither a PyTorch file nor safetensors")
    try:
        return _open_pickled(path, trust_pickle=trust_pickle)
    except (UserError, TooMuch):
        raise
    except Exception as error:  # torch.load raises a dozen types, KeyError and struct.error among them
        raise UserError(_explain(path, error)) from error


def _open_pickled(path: Path, *, trust_pickle: bool) -> OpenedFile:
    """The content of a file of PyTorch or of NumPy's arrays.

    Raises:
        Exception: whatever torch.load raises.
    """
    zipped = _first_bytes(path).startswith(b"PK")
    stored = zipped and _verify_records(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols
        if not zipped and is_numpy_pickle(path):
            return OpenedFile(read_numpy_pickle(path))
        mapped = stored and not trust_pickle  # a trusted file runs its code once
        content = read_torch(path, mmap=mapped, trust=trust_pickle)
        if mapped and size_of_model(content) >= _MOST * path.stat().st_size:
            mapped, content = False, read_torch(path, mmap=False, trust=False)
    if isinstance(content, Inert) and modules_in(path):
        raise UserError(f"{path} holds {WHOLE_MODEL} (it names {', '.join(modules_in(path)[:5])})")
    return OpenedFile(content.state_dict() if isinstance(content, nn.Module) else content, mapped)


def _read_split(index: Path, *, trust_pickle: bool) -> dict[str, Any]:
    """The tensors of all files that an index of Hugging Face names.

    Raises:
        UserError: the index is damaged, or a file or a tensor of it is missing.
    """
    content = read_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{index} is a damaged index of weights (it maps no tensors to files): get it again")
    tensors: dict[str, Any] = {}
    for name in sorted(set(names.values())):
        if Path(name).name != name or name in ("", "..", DISTRIBUTED) or name.endswith(INDEX):
            raise UserError(f"{index} names a file {name!r} that is none of weights in its folder")
        content = read_content(index.parent / name, trust_pickle=trust_pickle)
        if not isinstance(content, dict):
            raise UserError(f"{index.parent / name} holds a {type(content).__name__}, not tensors by name")
        tensors |= content
    missing = [name for name in names if name not in tensors]
    if missing:
        raise UserError(f"{index} names a tensor {missing[0]!r}, which none of its files has")
    return tensors


def _first_bytes(path: Path) -> bytes:
    """The first 64 bytes of a file that is not empty."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no file {printable(path)}; an untrained baseline is asked for by name, as "
            "random:resnet50"
        ) from error
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}") from error
    if not head:
        raise UserError(f"{path} is empty: its writing or download was interrupted, get it again")
    return head


def _is_safetensors(head: bytes) -> bool:
    """The format begins with the length of its JSON header in eight bytes, then the header."""
    return len(head) > 9 and head[8:9] == b"{" and not head.startswith((b"PK", b"\x80\x02", b"{"))


def _read_safetensors(path: Path) -> dict[str, Any]:
    import safetensors

    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    if length > min(MOST_HEADER, path.stat().st_size):
        if length <= MOST_HEADER:
            raise UserError(_truncated(path, 8 + length))
        raise UserError(
            f"{path} is a damaged safetensors file (its header would have {length:,} bytes, and none has "
            f"more than {MOST_HEADER:,}): get it again"
        )
    try:
        tensors = _copied(path)
        refuse_tangled(tensors)
        return tensors
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        whole = _whole_size(path)
        if whole > path.stat().st_size:
            raise UserError(_truncated(path, whole)) from error
        raise UserError(f"{path} is a damaged safetensors file ({error}): get it again") from error


def _truncated(path: Path, whole: int) -> str:
    return (
        f"{path} is a truncated safetensors file, {path.stat().st_size:,} bytes of at least {whole:,}: get "
        "it again"
    )


def _copied(path: Path) -> dict[str, Any]:
    """All tensors of a safetensors file in memory of their own.

    The library maps the file into memory. It is closed and opened again every 128 MiB, so that no more than
    that counts twice. A tensor that stayed mapped would change with the file.
    """
    import safetensors

    tensors: dict[str, Any] = {}
    with safetensors.safe_open(path, framework="pt") as file:
        names = iter(file.keys())
    name = next(names, None)
    while name is not None:
        copied = 0
        with safetensors.safe_open(path, framework="pt") as file:
            while name is not None and copied < _MAPPED_BYTES:
                tensors[name] = file.get_tensor(name).clone()
                copied += tensors[name].nbytes
                name = next(names, None)
    return tensors


def _whole_size(path: Path) -> int:
    """The size of a safetensors file by its header, or by the header's length where the header is cut; 0
    where the header is damaged."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        text = file.read(length)
    if len(text) < length:
        return 8 + int(length)
    try:
        header = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return 8 + int(length) + max(map(int, ends), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return 0


def _verify_records(path: Path) -> bool:
    """Compares the checksum of each record and, of a training's checkpoint, the digest in the file's name.

    Returns:
        Whether all records are stored as they are, not compressed.

    Raises:
        TooMuch: the records ask for more than the bounds.
    """
    try:
        stored = refuse_records(path)
        verify_zip(path)
        verify_name(path)
        return stored
    except (zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}): get it again") from error


def _explain(path: Path, error: Exception) -> str:
    """The error of loading as one sentence."""
    try:
        unsafe = unsafe_globals(path)
    except TooMuch as bound:
        return f"{path} {printable(str(bound))}"
    if any(name.split(".")[0] in _JAX for name in unsafe):
        return f"{path} {HAIKU}"
    quantisers = [name for name in unsafe if name.split(".")[0] in _QUANTISERS]
    if quantisers:
        return (
            f"{path} holds weights that are quantised (as {quantisers[0]}): give the file before "
            "quantisation, or save dequantised weights"
        )
    sharded = [name for name in unsafe if name.startswith("torch.distributed.")]
    if sharded:
        return (
            f"{path} holds one rank's part of tensors that are spread over ranks (as {sharded[0]}): save the "
            "whole weights, with torch.distributed.checkpoint.state_dict.get_model_state_dict and "
            "StateDictOptions(full_state_dict=True)"
        )
    if unsafe and modules_in(path):
        return f"{path} holds {WHOLE_MODEL} (it names {', '.join(unsafe[:5])})"
    if unsafe:
        return (
            f"{path} holds Python objects ({', '.join(unsafe[:5])}) that could run code: it was refused and "
            "nothing of it was run: save the tensors alone, as torch.save(model.state_dict(), ...), or, if "
            "you trust whoever made it, read it with --trust-pickle"
        )
    reason = printable((str(error).strip() or "no reason given").splitlines()[0][:100])
    return (
        f"{path} is truncated, damaged or not a checkpoint ({type(error).__name__}: {reason}): get it again"
    )
