"""Files of JSON that a user gives, read strictly and with bounded work.

JSON has neither NaN nor infinities, and a key that stands twice means two things. Numbers beyond a double's
range, or 64 bits, would become infinities or errors far from the file. A few bytes of brackets make a deep
tree, on which every function that walks it would run out of stack.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import read_checked_text
from siamtransfer.utils.small_files import read_small_file, text_of
from siamtransfer.utils.text import printable

MOST_BYTES = 2**27
"""Of a file; records have some thousand bytes, an index of ten thousand records some million."""
MOST_VALUES = 2_000_000
"""In a file; a value takes up to 100 bytes of memory."""
MOST_OF_OWN = 10_000_000
"""In a file that a program of ours keeps; suite.json has some sixty values a cell."""
MOST_LEVELS = 100
_TOO_DEEP = f"is nested deeper than the {MOST_LEVELS} levels that are read"
_SHOWN = 40  # characters of a wrong value


def read_json(path: str | Path) -> Any:
    """The content of a file of JSON.

    Raises:
        UserError: the file cannot be read (see `read_small_file`) or is no JSON, holds a key twice, a number
            that cannot be one, or more values or levels than a file of ours; names the place.
    """
    where = printable(path)
    return parse_json(text_of(read_small_file(path, MOST_BYTES), where), where)


def parse_json(text: str, where: str, most: int = MOST_VALUES) -> Any:
    """The content of JSON from the file `where`, of at most so many values.

    Raises:
        UserError: see `read_json`.
    """
    try:
        return _content_of(text, most)
    except ValueError as error:
        raise UserError(f"{where} {error}") from error


def read_checked_json(path: str | Path) -> Any:
    """The content of the JSON that `write_checked_text` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what was written, or no JSON; the message is the rest of a sentence that begins
            with the file's name.
    """
    return _content_of(read_checked_text(path), MOST_OF_OWN)


def _content_of(text: str, most: int) -> Any:
    """The content of JSON of at most so many values; raises ValueError with the rest of a sentence."""
    values = sum(map(text.count, ",[{"))
    if values > most:
        raise ValueError(f"holds up to {values:,} values, more than the {most:,} that are read")
    try:
        content = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=unique_keys,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _refuse_depth(content)
    return content


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"holds {word}, and JSON has no such number")


def _finite(word: str) -> float:
    value = float(word)
    if math.isinf(value):
        raise ValueError(f"holds the number {word[:_SHOWN]}, which is beyond the range of numbers")
    return value


def _integer(word: str) -> int:
    if len(word) > 20 or not -(2**63) <= int(word) < 2**64:
        raise ValueError(f"holds the integer {word[:_SHOWN]}, which is beyond 64 bits")
    return int(word)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; raises ValueError where a key stands there twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        count = Counter(name for name, _ in pairs)
        twice = next(name for name in count if count[name] > 1)
        raise ValueError(f"holds the key {twice[:_SHOWN]!r} twice in one object")
    return content


def _refuse_depth(content: Any) -> None:
    """Raises ValueError for more levels than MOST_LEVELS; goes level by level, without recursion."""
    level, depth = [content], 0
    while level:
        if depth > MOST_LEVELS:
            raise ValueError(_TOO_DEEP)
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        depth += 1
