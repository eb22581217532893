"""Strict JSON in one line, and nested dicts as flat ones."""

from __future__ import annotations

import json
import math
from typing import Any


def to_json(record: Any) -> str:
    """A record, or a part of one, as one line of strict JSON; NaN and infinities, which JSON does not have,
    become null.

    Bytes of a path that are not UTF-8 (surrogates) become escapes such as \\udcff, which a reader turns back.
    """
    text = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim": {"lr": 1}} -> {"optim.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(
            flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        )
    return flat


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
