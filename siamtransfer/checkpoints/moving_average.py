"""Moving averages of all weights (EMA, SWA) in a file, beside the weights themselves or alone.

The average is the branch `ema`. By default the plain weights are read, except from files whose own
`state_dict` is the average, as Lightning's WeightAveraging writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from siamtransfer.checkpoints.file_format import AVERAGES, USUAL_PATHS, KeyPath
from siamtransfer.checkpoints.tensor_dicts import entry_at, is_state_dict, unwrap_keys
from siamtransfer.checkpoints.wrappers import is_counter, without_wrappers

AVERAGE = "ema"
"""Name of the branch that is a moving average of all weights."""
_PLAIN = "current_model_state"
"""Where Lightning's WeightAveraging keeps the plain weights; its `state_dict` is the average."""
_WORDS = (*AVERAGES, "averaged_model", "average_model", "swa_model")
"""First words of an average's names in one dict with the weights."""


class MovingAverage(NamedTuple):
    """How a moving average of all weights was treated.

    Attributes:
        used: it replaces the weights.
        dropped: number of tensors left out for that: its own, or the weights that it replaces.
    """

    used: bool = False
    dropped: int = 0


def resolve_average(content: Any, branch: str | None) -> tuple[Any, MovingAverage]:
    """`content` without its moving average of all weights, or with the average instead of the weights.

    The average replaces the weights where `branch` is `ema`, where the file has no others, and by default
    where the file's `state_dict` is the average. An entry that does not have the weights' names stays, and is
    an unexpected key later.
    """
    if not isinstance(content, dict):
        return content, MovingAverage()
    average: Any = content.get("state_dict")
    plain: Any = content.get(_PLAIN)
    if is_state_dict(average) and is_state_dict(plain) and average.keys() == plain.keys():
        use = branch in (None, AVERAGE)
        rest = {key: value for key, value in content.items() if key not in (_PLAIN, "averaging_state")}
        left_out = plain if use else average
        return rest | {"state_dict": average if use else plain}, MovingAverage(use, len(left_out))
    resolved, found = _resolve_entries(content, use=branch == AVERAGE)
    return (resolved, found) if found != MovingAverage() else _resolve_words(content, branch == AVERAGE)


def _resolve_entries(content: dict[Any, Any], *, use: bool) -> tuple[dict[Any, Any], MovingAverage]:
    """A moving average in an entry of its own."""
    usual = (path[0] for path in USUAL_PATHS if path)
    weights = next((entry for entry in usual if is_state_dict(content.get(entry))), None)
    for entry in AVERAGES:
        average = content.get(entry)
        if isinstance(average, dict) and len(average) == 1:
            average = next(iter(average.values()))  # {"ema": {"module": ...}}
        if not isinstance(average, dict) or not is_state_dict(average):
            continue
        average = _without_counters(average)
        rest = {key: value for key, value in content.items() if key != entry}
        if weights is None:
            return {**rest, "state_dict": average}, MovingAverage(used=True)
        if unwrap_keys(average).keys() == unwrap_keys(content[weights]).keys():
            return ({**rest, weights: average} if use else rest), MovingAverage(use, len(average))
    return content, MovingAverage()


def _resolve_words(content: dict[Any, Any], use: bool) -> tuple[dict[Any, Any], MovingAverage]:
    """A moving average in one dict with the weights, under a first word of its own."""
    for path in USUAL_PATHS:
        tensors = entry_at(content, path)
        if not is_state_dict(tensors):
            continue
        names = {without_wrappers(str(key)): key for key in tensors}
        if len(names) < len(tensors):
            continue  # some tensors are there twice, which is refused later
        for word in _WORDS:
            average = {name: tensors[key] for name, key in names.items() if name.startswith(f"{word}.")}
            rest = {name: tensors[key] for name, key in names.items() if name not in average}
            average = _without_counters({name.removeprefix(f"{word}."): t for name, t in average.items()})
            if not average:
                continue
            if not _without_counters(rest):
                return _with(content, path, average), MovingAverage(used=True)
            prefix = _prefix_of(average, rest)
            if prefix is not None:
                named = {prefix + name: tensor for name, tensor in average.items()}
                return _with(content, path, rest | named if use else rest), MovingAverage(use, len(average))
    return content, MovingAverage()


def _prefix_of(average: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> str | None:
    """The beginning under which `rest` holds the very names of the average; None where it does not."""
    prefixes = dict.fromkeys(name[: name.index(".") + 1] for name in rest if "." in name)
    for prefix in ("", *prefixes):
        if {name.removeprefix(prefix) for name in rest if name.startswith(prefix)} == average.keys():
            return prefix
    return None


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if not is_counter(key, tensor)}


def _with(content: dict[Any, Any], path: KeyPath, tensors: dict[str, Tensor]) -> dict[Any, Any]:
    """`content` with these tensors at a key path, and all else as it is."""
    if not path:
        return tensors
    return {**content, path[0]: _with(content[path[0]], path[1:], tensors)}
