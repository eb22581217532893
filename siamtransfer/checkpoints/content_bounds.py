"""Bounds of what was read from a file: no container in itself, no endless walk, names that can be read.

Everything that looks through a file's content may take for granted that it is a tree of reasonable size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from siamtransfer.checkpoints.pickle_values import MOST_DEPTH, TooMuch

MOST_VALUES = 2**21
"""Values that one meets on a walk through the content; one that is shared counts as often as it is met."""
MOST_TENSORS = 20_000
"""Tensors of one dict; the largest network of timm has 3,000."""
MOST_ENTRIES = 20_000
"""Entries of the outermost dict."""
MOST_LETTERS = 1000
"""Characters of a tensor's name."""
_CONTAINERS = (dict, list, tuple)


class _Measure(NamedTuple):
    """Values on a walk through a container, and levels of containers in it."""

    values: int
    depth: int


def refuse_tangled(content: Any) -> None:
    """Raises TooMuch where a walk through the content would not end soon, or a tensor's name is none.

    Each container is looked at once, however often it is met, and none by recursion.
    """
    if not isinstance(content, _CONTAINERS):
        return
    if isinstance(content, dict) and len(content) > MOST_ENTRIES:
        raise TooMuch(f"has {len(content):,} entries")
    measured: dict[int, _Measure] = {}
    open_ones: set[int] = {id(content)}
    path: list[tuple[Any, Iterator[Any]]] = [(content, _inside(content))]
    while path:
        container, inner = path[-1]
        child = next((item for item in inner if id(item) not in measured), None)
        if child is None:
            path.pop()
            open_ones.discard(id(container))
            measured[id(container)] = _measure(container, measured)
            continue
        if id(child) in open_ones:
            raise TooMuch(f"holds a {type(child).__name__} that contains itself")
        open_ones.add(id(child))
        path.append((child, _inside(child)))


def _inside(container: Any) -> Iterator[Any]:
    """The containers directly inside a container."""
    values = container.values() if isinstance(container, dict) else container
    return (value for value in values if isinstance(value, _CONTAINERS))


def _measure(container: Any, measured: dict[int, _Measure]) -> _Measure:
    """The measure of a container, those inside of which are measured.

    Raises:
        TooMuch: it is beyond the bounds.
    """
    if isinstance(container, dict):
        _refuse_names(container)
    inner = [measured[id(child)] for child in _inside(container)]
    values = 1 + len(container) + sum(child.values for child in inner)
    depth = 1 + max((child.depth for child in inner), default=0)
    if values > MOST_VALUES:
        raise TooMuch(f"holds {values:.3g} values, with lists or dicts that stand in it many times")
    if depth > MOST_DEPTH:
        raise TooMuch(f"holds lists, tuples or dicts in each other, more than {MOST_DEPTH} levels deep")
    return _Measure(values, depth)


def _refuse_names(entries: dict[Any, Any]) -> None:
    """Raises TooMuch where a name of a tensor is no readable text, or there are too many."""
    tensors = 0
    for key, value in entries.items():
        if isinstance(key, tuple) and any(isinstance(part, tuple) for part in key):
            raise TooMuch("has a key that is a tuple of tuples")
        if isinstance(value, Tensor):
            tensors += 1
            if isinstance(key, str | bytes) and len(key) > MOST_LETTERS:
                raise TooMuch(f"has a tensor whose name has {len(key):,} characters")
            if isinstance(key, str) and not key.isascii():
                _refuse_halves(key)
    if tensors > MOST_TENSORS:
        raise TooMuch(f"has {tensors:,} tensors in one dict")


def _refuse_halves(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise TooMuch(f"has a tensor whose name is no Unicode text ({key!a})") from error
