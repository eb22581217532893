"""The dicts of tensors in a file's content, by the names that the tensors have without wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from siamtransfer.checkpoints.file_format import KeyPath
from siamtransfer.checkpoints.wrappers import is_counter, without_wrappers

_MODEL_WORDS = ("model.", "net.", "network.", "timm_model.")
"""How a training script's module calls the model that it holds."""


class Unknown(NamedTuple):
    """Tensors that together are those of no known network, and in words what holds them."""

    what: str
    tensors: Mapping[str, Tensor]


class Mismatch(Exception):
    """Why a file is not of a certain format.

    `matched` is the number of keys that the format explains; of several formats' reasons, that of the format
    with most of them is reported. `unknown` are the tensors of its backbone where they are no
    known network's.
    """

    def __init__(self, reason: str, matched: int = 0, unknown: Unknown | None = None):
        super().__init__(reason)
        self.matched = matched
        self.unknown = unknown


def find_tensors(content: Any, path: KeyPath) -> dict[str, Tensor] | None:
    """The dict of tensors at a key path, without wrappers in its keys and without counters of a moving
    average; None where there is none.

    Raises:
        Mismatch: two keys become one.
    """
    tensors = entry_at(content, path)
    if not is_state_dict(tensors):
        return None
    return {key: tensor for key, tensor in unwrap_keys(tensors).items() if not is_counter(key, tensor)}


def entry_at(content: Any, path: KeyPath) -> Any:
    """The value at a key path; None where there is none."""
    for entry in path:
        content = content.get(entry) if isinstance(content, dict) else None
    return content


def is_state_dict(value: Any) -> bool:
    """Whether `value` is a dict of one or more tensors and nothing else."""
    return (
        isinstance(value, dict) and bool(value) and all(isinstance(item, Tensor) for item in value.values())
    )


def unwrap_keys(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without wrappers in their names, and without a first word that all of them share
    because the training script's module holds the model as `model`, `net` or `network`.

    Raises:
        Mismatch: two keys become one.
    """
    unwrapped = {without_wrappers(str(key)): tensor for key, tensor in tensors.items()}
    if len(unwrapped) < len(tensors):
        raise Mismatch(
            "holds some tensors twice, with and without the prefix of a wrapper such as module.", 1
        )
    prefix = _model_words([key for key, tensor in unwrapped.items() if not is_counter(key, tensor)])
    if not prefix:
        return unwrapped
    return unwrap_keys({key.removeprefix(prefix): tensor for key, tensor in unwrapped.items()})


def _model_words(keys: list[str]) -> str:
    """The first words that all keys share, as far as they are those of a model in a module."""
    if not keys:
        return ""
    first, last, length = min(keys), max(keys), 0  # what these two share, all share
    while word := next((word for word in _MODEL_WORDS if first.startswith(word, length)), ""):
        if not last.startswith(word, length):
            break
        length += len(word)
    return first[:length]
