"""The values beside the tensors of a head, checked when its file is read: any program may have written it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

from siamtransfer.checkpoints.preprocessing import Interpolation
from siamtransfer.embedding.predict.probe import Kind
from siamtransfer.utils.errors import UserError

_MOST_SIDE = 2**16  # pixels of a crop


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MOST_SIDE


def _are(values: Any, kind: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and bool(values) and all(map(kind, values))


def _is_transform(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"crop", "resize", "mean", "std", "interpolation"}:
        return False
    means, stds = value["mean"], value["std"]
    return (
        _is_side(value["crop"])
        and (value["resize"] is None or _is_side(value["resize"]))
        and _are(means, _is_number)
        and _are(stds, lambda std: _is_number(std) and std > 0)
        and len(means) == len(stds)
        and value["interpolation"] in get_args(Interpolation)
    )


def _is_reading(value: Any) -> bool:
    return isinstance(value, dict) and all(
        item is None or isinstance(item, str | int | float | list) for item in value.values()
    )


_VALUES: dict[str, Callable[[Any], bool]] = {
    "kind": lambda value: value in get_args(Kind),
    "strength": lambda value: value is None or (_is_number(value) and value > 0),
    "classes": lambda value: _are(value, _is_text) and len(set(value)) == len(value),
    "temperature": lambda value: _is_number(value) and value > 0,
    "threshold": _is_number,
    "checkpoint": _is_text,
    "branch": lambda value: value is None or _is_text(value),
    "reading": _is_reading,
    "weights_digest": lambda value: value is None or _is_text(value),
    "transform": _is_transform,
    "layers": _is_text,
    "precision": _is_text,
    "form": lambda value: isinstance(value, dict),
    "calibrated": lambda value: isinstance(value, bool),
    "unknown_quantile": _is_number,
    "estimate": lambda value: isinstance(value, dict),
    "labelled_fingerprints": lambda value: _are(value, _is_text),
}


def require_values(values: Any, where: str) -> dict[str, Any]:
    """The values of a head, once each is of its kind; `where` names the file.

    Raises:
        UserError: one is absent or of another kind; names it.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} is no usable head: it has no values beside its tensors; make it anew")
    for name, fits in _VALUES.items():
        if name not in values or not fits(values[name]):
            what = "no" if name not in values else "an odd"
            raise UserError(f"{where} is no usable head: it has {what} value {name!r}; make it anew")
    if values["kind"] == "logistic" and values["strength"] is None:
        raise UserError(f"{where} is no usable head: it has no value 'strength'; make it anew")
    return values
