"""Plain aliases of metric names, for viewers that refuse `=` in a name (MLflow, W&B).

The full name `knn/k=20/T=0.07/top1` tells every setting; its alias is `knn/top1`.
"""

from __future__ import annotations

import re
from collections import Counter

SETTINGS = ("k", "T", "C")
"""Neighbours or shots, temperature, strength: an alias leaves them out, for the protocol states them."""


def alias_of(name: str) -> str:
    """The name without its settings, of letters, digits, `_ - . /` and space only.

    Other `key=value` words become `key_value`: `linear/epoch=3/top1` is `linear/epoch_3/top1`. A name that is
    plain already is its own alias.
    """
    words = [word for word in name.split("/") if word.partition("=")[0] not in SETTINGS or "=" not in word]
    return re.sub(r"[^A-Za-z0-9_\-./ ]", "_", "/".join(words))


def with_aliases(metrics: dict[str, float]) -> dict[str, float]:
    """`metrics` and, after them, the same numbers under their aliases. Names that share an alias, such as
    those of several k, get none."""
    count = Counter(map(alias_of, metrics))
    aliases = {alias_of(name): value for name, value in metrics.items() if count[alias_of(name)] == 1}
    return metrics | {name: value for name, value in aliases.items() if name not in metrics}
