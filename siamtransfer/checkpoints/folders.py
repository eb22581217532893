"""The file of the weights in a folder, or what the folder is instead and the way to one that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from siamtransfer.checkpoints.foreign_files import (
    COREML,
    FLAX,
    KERAS,
    ONNX,
    OPENVINO,
    ORBAX,
    SAVED_MODEL,
    TENSORFLOW,
)
from siamtransfer.utils.errors import UserError

INDEX = ".index.json"
DISTRIBUTED = ".metadata"
"""The file that a checkpoint of torch.distributed.checkpoint has in its folder."""
_WEIGHTS = (
    *("model.safetensors", "pytorch_model.bin"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
)
_CHECKPOINTS = ("*.pth", "*.pt", "*.ckpt", "*.safetensors", "*.bin", "*.pth.tar", "*.pkl")
_DEEPSPEED = (
    "is a checkpoint of DeepSpeed, whose weights lie in shards: make one file of them with the script that "
    "DeepSpeed puts beside them, `python zero_to_fp32.py . OUT_FOLDER`, and give that"
)
_ADAPTER = (
    "holds a low-rank adapter of peft without the network that it changes: merge them, with "
    "peft's model.merge_and_unload(), and save the result"
)
_PIPELINE = "is a pipeline of diffusers, of several networks: give one of its subfolders"
_UNPACKED = (
    "is a file of PyTorch that something has unpacked: give the file as it was downloaded, or pack it again, "
    "in the folder above, with `zip -0 -r NEW_FILE.pth FOLDER`"
)


class _Kind(NamedTuple):
    """A folder that has an entry that fits one of the patterns."""

    patterns: tuple[str, ...]
    sentence: str


_KINDS = (
    _Kind(("zero_to_fp32.py", "*_model_states.pt", "*_optim_states.pt", "global_step*/"), _DEEPSPEED),
    _Kind(("saved_model.pb", "saved_model.pbtxt"), SAVED_MODEL),
    _Kind(("*.index",), TENSORFLOW),
    _Kind(("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "ocdbt.process_*"), ORBAX),
    _Kind(("Data/com.apple.CoreML", "*.mlmodel"), COREML),
    _Kind(("adapter_config.json", "adapter_model.*"), _ADAPTER),
    _Kind(("model_index.json",), _PIPELINE),
    _Kind(("flax_model.msgpack",), f"holds a file flax_model.msgpack, which {FLAX}"),
    _Kind(("tf_model.h5",), f"holds a file tf_model.h5 of {KERAS}"),
    _Kind(("model.onnx", "onnx/model.onnx"), f"holds a file model.onnx, which {ONNX}"),
    _Kind(("openvino_model.xml",), OPENVINO),
    _Kind(("data.pkl",), _UNPACKED),
)


def weights_in_folder(folder: Path) -> Path:
    """The file of the weights in a folder as Hugging Face's libraries write it, or their index where they are
    split over several files, or the `.metadata` of torch.distributed.checkpoint.

    Raises:
        UserError: the folder has none; says what it is.
    """
    for name in (*_WEIGHTS, *(f"{name}{INDEX}" for name in _WEIGHTS), DISTRIBUTED):
        if (folder / name).is_file():
            return folder / name
    for kind in _KINDS:
        if any(any(folder.glob(pattern)) for pattern in kind.patterns):
            raise UserError(f"{folder} {kind.sentence}")
    raise UserError(f"{folder} is a folder: {_advice(folder)}")


def _advice(folder: Path) -> str:
    """Which file to give."""
    if (folder / "checkpoint.pth").is_file():
        return f"give {folder / 'checkpoint.pth'}"
    files = sorted({file.name for pattern in _CHECKPOINTS for file in folder.glob(pattern)})
    if not files:
        return "give the checkpoint file in it"
    more = " ..." if len(files) > 3 else ""
    return f"give the checkpoint file in it ({', '.join(files[:3])}{more})"
