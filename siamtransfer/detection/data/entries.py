"""The entries of one list in a file of annotations, checked a key at a time.

A set may have a million entries, so what is right is found by few passes over whole columns, and only where a
column is not, one entry after the other is looked at for the first that is wrong.
"""

from __future__ import annotations

import itertools
import json
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from siamtransfer.utils.errors import UserError

MOST_ID = 2**128 - 1
"""Programs that number by UUIDs write 128 bits."""
EXACT = 2**53
"""Up to here every integer is a float, so that 3.0 is surely 3."""
NUMBERS = frozenset((int, float))
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxlong = 3, 8, 4, 60, 30


def shown(value: Any) -> str:
    """The value in short and in one line of text: as Python writes it, but for null, true and false."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return _SHORT.repr(value).encode("utf-8", "backslashreplace").decode()


def whole(value: Any) -> int | None:
    """The integer that a value of JSON surely is, 3 or 3.0; None for True, "3", 3.5, and what has more than
    128 bits."""
    if type(value) is float and value.is_integer() and abs(value) <= EXACT:
        return int(value)
    return value if type(value) is int and abs(value) <= MOST_ID else None


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether all are int or float; True and False are none."""
    return NUMBERS.issuperset(map(type, values))


class Entries:
    """The entries `items` of the list `name` (images, annotations, categories) of the file called `where`."""

    def __init__(self, name: str, items: Sequence[dict[str, Any]], where: str):
        self.name, self.items, self.where = name, items, where

    def __len__(self) -> int:
        return len(self.items)

    def subject(self, position: int) -> str:
        """The entry in a message: annotations[17] (id 18) in FILE."""
        item = self.items[position]
        key = f" (id {shown(item['id'])})" if "id" in item else ""
        return f"{self.name}[{position}]{key} in {self.where}"

    def wrong(self, position: int, what: str, cure: str = "mend the entry or take it out") -> UserError:
        """The error whose sentence begins with the entry and ends with the cure."""
        return UserError(f"{self.subject(position)} {what}; {cure}")

    def column(self, key: str, otherwise: Any = None) -> list[Any]:
        """The value of every entry, `otherwise` where it has none."""
        return [item.get(key, otherwise) for item in self.items]

    def integers(self, key: str, wanted: str) -> list[int]:
        """A column of integers of up to 128 bits; whole floats are taken as such.

        Raises:
            UserError: a value is none; the sentence says what is `wanted`.
        """
        values = self.column(key)
        if set(map(type, values)) == {int} and max(values) <= MOST_ID and min(values) >= -MOST_ID:
            return values
        return [self._integer(position, key, value, wanted) for position, value in enumerate(values)]

    def _integer(self, position: int, key: str, value: Any, wanted: str) -> int:
        number = whole(value)
        if number is not None:
            return number
        if key not in self.items[position]:
            raise self.wrong(position, f"has no {key}", f"give {wanted}")
        raise self.wrong(position, f"has the {key} {shown(value)} instead of {wanted}")

    def ids(self) -> list[int]:
        """The ids, each of which stands once.

        Raises:
            UserError: one is no integer, or stands twice.
        """
        values = self.integers("id", "an integer of its own")
        if len(set(values)) < len(values):
            places: dict[int, int] = {}
            for position, key in enumerate(values):
                if key in places:
                    raise UserError(
                        f"two entries of {self.name} in {self.where} have the id {key}, "
                        f"{self.name}[{places[key]}] and {self.name}[{position}]; give each its own"
                    )
                places[key] = position
        return values

    def flags(self, key: str) -> list[int]:
        """A column of 0 and 1; true, false and whole floats are taken as such, and no value as 0.

        Raises:
            UserError: a value is another one.
        """
        values = self.column(key, 0)
        for position, value in enumerate(values):
            if type(value) is not int or value not in (0, 1):
                if type(value) not in (bool, float) or value not in (0, 1):
                    raise self.wrong(position, f"has the {key} {shown(value)} instead of 0 or 1")
                values[position] = int(value)
        return values

    def rows(self, key: str, length: int, otherwise: str) -> np.ndarray:
        """float64[n, length], a column of lists of `length` numbers.

        Raises:
            UserError: a value is no such list; the sentence says what it is and what it is not.
        """
        values = self.column(key)
        flat = None
        if {list}.issuperset(map(type, values)) and {length}.issuperset(map(len, values)):
            flat = numbers_of(list(itertools.chain.from_iterable(values)))
        if flat is None:
            position = first(values, lambda row: _is_row(row, length))
            raise self.wrong(position, f"has the {key} {shown(values[position])} instead of {otherwise}")
        return flat.reshape(-1, length)


def numbers_of(values: list[Any]) -> np.ndarray | None:
    """float64[n] of numbers; None where one is none, or an integer beyond the range of floats."""
    if not are_numbers(values):
        return None
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return None


def first(values: Iterable[Any], is_right: Callable[[Any], bool]) -> int:
    """The position of the first value that is not right; there has to be one."""
    return next(position for position, value in enumerate(values) if not is_right(value))


def _is_row(row: Any, length: int) -> bool:
    return type(row) is list and len(row) == length and numbers_of(row) is not None
