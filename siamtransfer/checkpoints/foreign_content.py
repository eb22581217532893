"""Content that was opened and holds no backbone, or holds one in numbers that cannot be read: what it is, and
the way to one that can be read. A sentence here continues one that begins with the file's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from siamtransfer.checkpoints.file_format import TRAINING
from siamtransfer.checkpoints.pickles import Inert
from siamtransfer.checkpoints.tensor_kinds import QUANTISED, bytes_of, describe_kind, describe_repeated
from siamtransfer.checkpoints.wrappers import without_wrappers

HAIKU = (
    "is a pickle of JAX and Haiku objects (DeepMind's BYOL weights are such): unpickle it where jax and "
    "dm-haiku are installed, transpose its kernels from HWIO to OIHW, give its tensors torchvision's names, "
    "and save them with torch.save(state_dict, ...)"
)
WHOLE_MODEL = (
    "a whole pickled model, whose code would run while it is loaded: save its weights alone, where its code "
    "is, with torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW_FILE), or, if you trust "
    "whoever made it, read it with --trust-pickle"
)
_ZERO = "lie in shards: make one file of them with the script beside them, `python zero_to_fp32.py . OUT`"
_HEADS = {
    *("fc", "head", "heads", "classifier", "online_classifier", "linear", "neck", "prototypes", "queue"),
    *("projector", "predictor", "projection_head", "prediction_head", "momentum_projector", "criterion"),
}


class _Names(NamedTuple):
    """Names of tensors that only files of a kind have."""

    pattern: re.Pattern[str]
    sentence: str


_KINDS = (
    _Names(
        re.compile(r"\.(lora_|hada_w|lokr_w|oft_[rR]|vera_|ia3_)|^lora_|\.lora\."),
        "a low-rank adapter (LoRA): merge it into its network, with peft's model.merge_and_unload(), and "
        "save the result",
    ),
    _Names(
        re.compile(r"(^|\.)_?flat_param(_\d+)?$"),
        "one rank's flattened shard of FSDP: save the whole weights, with StateDictType.FULL_STATE_DICT or "
        "torch.distributed.checkpoint.state_dict.get_model_state_dict(full_state_dict=True)",
    ),
    _Names(
        re.compile(r"\.(SCB|weight_format|absmax|quant_map|quant_state\..*)$"), f"bitsandbytes, {QUANTISED}"
    ),
    _Names(re.compile(r"\.(qweight|qzeros|g_idx)$"), f"GPTQ or AWQ, {QUANTISED}"),
    _Names(re.compile(r"\._packed_params(\.|$)"), f"PyTorch's quantisation, {QUANTISED}"),
    _Names(re.compile(r"\.(weight_scale(_inv)?|weight_packed|input_scale)$"), f"scaled numbers, {QUANTISED}"),
)


def describe_unreadable(content: Any) -> str | None:
    """What content is whose tensors are no plain weights (an adapter, quantised, sharded); None for other
    content."""
    if not isinstance(content, dict):
        return None
    if "ds_version" in content and "optimizer_state_dict" in content:
        return f"is DeepSpeed's state of an optimiser; the weights {_ZERO}"
    for name, tensor in _model_tensors(content):
        for kind in _KINDS:
            if kind.pattern.search(name):
                return f"has a tensor {name!r} of {kind.sentence}"
        sentence = describe_kind(name, tensor)
        if sentence is not None:
            return sentence
        if tensor.numel() == 0 and "ds_version" in content:
            return f"is one rank's file of DeepSpeed's ZeRO stage 3, whose weights {_ZERO}"
    return describe_repeated(_model_tensors(content))


def describe_content(content: Any) -> str:
    """What a file of no known format holds."""
    if isinstance(content, Inert) or (isinstance(content, dict) and any(map(_is_module, content.values()))):
        return f"holds {WHOLE_MODEL}"
    if not isinstance(content, dict):
        return f"holds a {type(content).__name__}, not a checkpoint"
    if "experiment_state" in content:
        return HAIKU
    if not holds_tensors(content):
        return f"holds no tensors, only {', '.join(map(repr, list(content)[:5])) or 'an empty dict'}"
    holders = {str(entry) for entry, value in content.items() if holds_tensors(value)}
    if holders <= TRAINING | {"state", "param_groups"}:
        return "holds the state of an optimiser only, no backbone: give the file with the model's weights"
    stray = _stray_value(content)
    if stray is not None:
        return stray
    names = list(dict.fromkeys(name for name, _ in _tensors(content)))
    words = {without_wrappers(name).split(".")[0] for name in names}
    if words <= _HEADS:
        return f"holds only heads ({', '.join(sorted(words))}), no backbone"
    return f"is of no known format; its tensors are called {_samples(names)}"


def _stray_value(content: dict[Any, Any]) -> str | None:
    """The sentence on a dict of tensors, the content or an entry of it, with a value among them that is none;
    None where there is no such dict."""
    for tensors in (content, *content.values()):
        if not isinstance(tensors, dict):
            continue
        strays = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
        named = [key for key in strays if "." in str(key)]  # as tensors are, and entries are not
        if named and len(strays) < len(tensors) / 2:
            kind = type(tensors[named[0]]).__name__
            return (
                f"has among its tensors an entry {named[0]!r} that is no tensor but of type {kind}: remove it"
            )
    return None


def _samples(names: list[str]) -> str:
    """Three names, and one for each further first word."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(without_wrappers(name).split(".")[0], name)
    shown = dict.fromkeys([*names[:3], *list(first.values())[:5]])
    return ", ".join(shown) + (" ..." if len(shown) < len(names) else "")


def _is_module(value: Any) -> bool:
    """Whether it stands for an object of torch.nn.Module."""
    return isinstance(value, Inert) and isinstance(value.state, dict) and "_modules" in value.state


def holds_tensors(value: Any) -> bool:
    """Whether a tensor with dimensions is anywhere inside."""
    return any(tensor.dim() > 0 for _, tensor in _tensors(value))  # a recorded accuracy has none


def size_of_model(content: Any) -> int:
    """Bytes of all tensors outside the entries of the training."""
    tensors = _model_tensors(content) if isinstance(content, dict) else _tensors(content)
    return sum({id(tensor): bytes_of(tensor) for _, tensor in tensors}.values())


def _model_tensors(content: dict[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors outside the entries of the training."""
    for entry, value in content.items():
        if entry not in TRAINING:
            yield from _tensors(value, str(entry))


def _tensors(value: Any, key: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its key in its own dict, the innermost."""
    if isinstance(value, Tensor):
        yield key, value
    elif isinstance(value, dict):
        for entry, item in value.items():
            yield from _tensors(item, str(entry))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, key)
