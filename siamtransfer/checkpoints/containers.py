"""Opens a checkpoint file of any kind without running code in it, or says in one sentence what the file is.

The result holds tensors, numbers, texts, lists and dicts. A file that would run Python code while it is
loaded is refused, with the names of what it would call, unless the user trusts it (see pickles.py).
"""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from siamtransfer.checkpoints.pickles import is_numpy_pickle, read_numpy_pickle, read_torch, unsafe_globals
from siamtransfer.checkpoints.state_names import verify_name
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.zip_files import verify_zip

WRAPPERS = ("module", "_orig_mod")  # of DataParallel and of torch.compile
_HEADS = {
    *("fc", "head", "heads", "classifier", "online_classifier", "linear", "neck", "prototypes", "queue"),
    *("projector", "predictor", "projection_head", "prediction_head", "momentum_projector", "criterion"),
}
_TENSORFLOW = (
    "is a part of a TensorFlow checkpoint (SimCLR's official weights are such): convert it to PyTorch first, "
    "as public SimCLR converters do, and give the .pth file; its images then enter in [0, 1], not normalised"
)
_HAIKU = (
    "is a pickle of JAX and Haiku objects (DeepMind's BYOL weights are such): unpickle it where jax and "
    "dm-haiku are installed, transpose its kernels from HWIO to OIHW, give its tensors torchvision's names, "
    "and save them with torch.save(state_dict, ...)"
)
_JAX = ("jax", "jaxlib", "haiku", "dm_haiku", "dill", "byol")
_PAGE = "is a web page, probably an error page saved under this name: download the file again"
# The first bytes of files that are not checkpoints, and what their users can do.
_OTHER_FILES = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file it points to: run `git lfs pull`"),
    (b"<!doctype html", _PAGE),
    (b"<html", _PAGE),
    (b"<?xml", "is an XML document, probably a server's error message: download the file again"),
    (b"\x89hdf", "is an HDF5 (Keras) file: export its weights to a PyTorch or safetensors file first"),
    (b"\x1f\x8b", "is compressed with gzip: decompress it first"),
    (b"\xfd7zxz", "is compressed with xz: decompress it first"),
    (b"model_checkpoint_path:", _TENSORFLOW),
)


def read_content(path: Path, *, trust_pickle: bool = False) -> Any:
    """The content of a .pth, .pt, .ckpt, .safetensors or Detectron2's .pkl file, whatever its suffix, or of a
    folder of Hugging Face.

    Tensors are on the CPU; NumPy arrays become tensors. With `trust_pickle` the file may hold any Python
    object, and may run any code while it is loaded.

    Tensors of a zip file (PyTorch's format since 1.6) are mapped into memory, not read, so that unused ones
    take no memory; changes of them do not reach the file. PyTorch stores a checksum with every tensor and
    never compares it; here it is compared first.

    Raises:
        UserError: there is no such file, it is damaged, it is something else, or it holds Python objects.
    """
    if path.is_dir():
        path = weights_in_folder(path)
    if path.name.endswith(_INDEX):
        return _read_split(path, trust_pickle=trust_pickle)
    head = _first_bytes(path)
    for beginning, what in _OTHER_FILES:
        if head.lstrip().lower().startswith(beginning):
            raise UserError(f"{path} {what}")
    if path.suffix == ".index" or ".data-0" in path.name or path.name == "saved_model.pb":
        raise UserError(f"{path} {_TENSORFLOW}")
    if _is_safetensors(head):
        return _read_safetensors(path)
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise UserError(f"{path} is not a checkpoint: it is neither a PyTorch file nor safetensors")
    try:
        zipped = head.startswith(b"PK")
        if zipped:
            _verify_checksums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, and TorchScript just before refusing
            if not zipped and is_numpy_pickle(path):
                return read_numpy_pickle(path)
            content = read_torch(path, mmap=zipped, trust=trust_pickle)
            return content.state_dict() if isinstance(content, nn.Module) else content  # only when trusted
    except UserError:
        raise
    except Exception as error:  # torch.load raises a dozen types, KeyError and struct.error among them
        raise UserError(_explain(path, error)) from error


_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"


def weights_in_folder(folder: Path) -> Path:
    """The file of the weights in a folder as Hugging Face's libraries write it, or their index where they are
    split over several files.

    Raises:
        UserError: the folder has none; says what it is.
    """
    for name in (*_WEIGHTS, *(f"{name}{_INDEX}" for name in _WEIGHTS)):
        if (folder / name).is_file():
            return folder / name
    if any(folder.glob("*.index")) or (folder / "saved_model.pb").exists():
        raise UserError(f"{folder} {_TENSORFLOW}")
    if (folder / ".metadata").is_file():
        raise UserError(
            f"{folder} is a checkpoint of torch.distributed: make a file of it with "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`"
        )
    inside = folder / "checkpoint.pth"
    hint = f"give {inside}" if inside.is_file() else "give the checkpoint file in it"
    raise UserError(f"{folder} is a folder: {hint}")


def _read_split(index: Path, *, trust_pickle: bool) -> dict[str, Any]:
    """The tensors of all files that an index of Hugging Face names.

    Raises:
        UserError: the index is damaged, or a file or a tensor of it is missing.
    """
    try:
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(names.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is a damaged index of weights ({error}): get it again") from error
    tensors: dict[str, Any] = {}
    for name in files:
        if Path(name).name != name:
            raise UserError(f"{index} names a file {name!r} outside its folder")
        tensors |= read_content(index.parent / name, trust_pickle=trust_pickle)
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
            f"there is no file {path}; an untrained baseline is asked for by name, as random:resnet50"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise UserError(f"{path} is empty: its writing or download was interrupted, get it again")
    return head


def _is_safetensors(head: bytes) -> bool:
    """The format begins with the length of its JSON header in eight bytes, then the header."""
    return len(head) > 9 and struct.unpack("<Q", head[:8])[0] < 2**32 and head[8:9] == b"{"


def _read_safetensors(path: Path) -> dict[str, Any]:
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} is a damaged safetensors file ({error}): get it again") from error


def _verify_checksums(path: Path) -> None:
    """Compares the checksum of each record and, of a training's checkpoint, the digest in the file's name."""
    try:
        verify_zip(path)
        verify_name(path)
    except (zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}): get it again") from error


def _explain(path: Path, error: Exception) -> str:
    """The error of loading as one sentence."""
    if "TorchScript" in str(error):
        return f"{path} is a TorchScript program, not a checkpoint: save its state_dict() instead"
    unsafe = unsafe_globals(path)
    if any(name.split(".")[0] in _JAX for name in unsafe):
        return f"{path} {_HAIKU}"
    if unsafe:
        return (
            f"{path} holds Python objects ({', '.join(unsafe[:5])}) that could run code: it was refused and "
            "nothing of it was run: save the tensors alone, as torch.save(model.state_dict(), ...), or, if "
            "you trust whoever made it, read it with --trust-pickle"
        )
    reason = (str(error).strip() or "no reason given").splitlines()[0][:100]
    return (
        f"{path} is truncated, damaged or not a checkpoint ({type(error).__name__}: {reason}): get it again"
    )


def describe_content(content: Any) -> str:
    """What a file of no known format holds, as the rest of a sentence that begins with the file's name."""
    if not isinstance(content, dict):
        return f"holds a {type(content).__name__}, not a checkpoint"
    if "experiment_state" in content:
        return _HAIKU
    if not holds_tensors(content):
        return f"holds no tensors, only {', '.join(map(repr, list(content)[:5])) or 'an empty dict'}"
    training = {"state", "param_groups", "optimizer", "scheduler", "scaler", "lr_scheduler"}
    holders = {str(entry) for entry, value in content.items() if holds_tensors(value)}
    if holders <= training:
        return "holds the state of an optimiser only, no backbone: give the file with the model's weights"
    names = list(dict.fromkeys(_tensor_names(content)))
    words = {without_wrappers(name).split(".")[0] for name in names}
    if words <= _HEADS:
        return f"holds only heads ({', '.join(sorted(words))}), no backbone"
    return f"is of no known format; its tensors are called {', '.join(names[:3])} ..."


def _tensor_names(value: Any, key: str = "") -> list[str]:
    """The key of every tensor in its own dict, the innermost."""
    if isinstance(value, dict):
        return [name for entry, item in value.items() for name in _tensor_names(item, str(entry))]
    return [key] if isinstance(value, Tensor) and value.ndim else []


def holds_tensors(value: Any) -> bool:
    """Whether a tensor with dimensions is anywhere inside."""
    if isinstance(value, Tensor):
        return value.ndim > 0  # a recorded accuracy is a tensor without dimensions
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(holds_tensors(item) for item in inside)


def without_wrappers(key: str) -> str:
    """A tensor's key without the words that DataParallel and torch.compile add to it."""
    return ".".join(word for word in key.split(".") if word not in WRAPPERS)
