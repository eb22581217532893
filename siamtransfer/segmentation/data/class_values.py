"""Which value in a mask's file is which class."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from siamtransfer.metrics.segmentation import named_counts
from siamtransfer.segmentation.data.masked_images import IGNORE, WIDE_IGNORE, mask_type
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import read_small_text
from siamtransfer.utils.text import printable

VALUES = 2**16
MOST_BYTES = 2**23
"""Of a class list; one of 65,536 long names has half of it."""
LONGEST_VALUE = 20  # characters of a value in a class list; Python refuses to read a number of thousands
_UNKNOWN = -1


class ClassValues:
    """The classes of a set, the values of its files that mean them, and those that mean "ignored".

    Attributes:
        classes: C names.
        ignore: the value of ignored pixels in what `apply` returns.
        ignored: the values of the files that mean it.
    """

    def __init__(self, classes: Sequence[str], values: Mapping[int, int], ignored: Sequence[int]):
        """`values` gives the class number of each value; `ignored` are values that count nowhere."""
        self.classes, self.ignored = tuple(classes), tuple(ignored)
        self._type, self.ignore = mask_type(len(self.classes))
        self._table = np.full(VALUES, _UNKNOWN, np.int32)
        self._table[list(self.ignored)] = self.ignore
        for value, number in values.items():
            self._table[value] = number
        self._known = self._table != _UNKNOWN
        self._narrow = self._table[:256].astype(self._type)
        self._wide = self._table.astype(self._type)

    @property
    def digest(self) -> str:
        """SHA-256 over the classes and the meaning of every value."""
        text = "\n".join(self.classes).encode()
        return hashlib.sha256(text + b"\0" + self._table.tobytes()).hexdigest()

    def unknown(self, counts: np.ndarray) -> np.ndarray:
        """int64[n]: the values with counts[V] above 0 that are neither a class nor ignored."""
        return np.flatnonzero(~self._known[: len(counts)] & (counts > 0))

    def classes_of(self, counts: np.ndarray) -> np.ndarray:
        """int64[C]: the pixels of each class, from counts[V] of the values of a file."""
        numbers = self._table[: len(counts)]
        inside = (numbers >= 0) & (numbers < len(self.classes))
        return np.bincount(numbers[inside], counts[inside], len(self.classes)).astype(np.int64)

    def apply(self, raw: np.ndarray, where: str) -> np.ndarray:
        """Class numbers and `ignore` of the values of a file, uint8[H,W] or uint16[H,W].

        Raises:
            UserError: a value is neither a class nor ignored; names `where`, the values and their pixels.
        """
        narrow = raw.dtype == np.uint8
        known = self._known[:256] if narrow else self._known
        if not known.all() and not known[raw].all():
            counts = np.bincount(raw.ravel())
            raise UserError(self.unknown_sentence(where, self.unknown(counts).tolist(), counts))
        return (self._narrow if narrow else self._wide)[raw]

    def unknown_sentence(self, where: str, values: Sequence[int], counts: np.ndarray) -> str:
        """The sentence about `values`, of which counts[V] has the pixels."""
        named = named_counts(values, [int(counts[value]) for value in values])
        ignored = " and ".join(map(str, self.ignored)) or "none"
        return (
            f"{where} holds {named}, which is neither a class ({self._range()}) nor ignored ({ignored}); "
            "mend the mask, name the class in the class list, or state the ignored value"
        )

    def _range(self) -> str:
        inside = np.flatnonzero((self._table >= 0) & (self._table < len(self.classes)))
        return f"{inside.min()} to {inside.max()}, {len(self.classes)} classes" if len(inside) else "none"


def numbered(classes: Sequence[str], ignored: Sequence[int], first: int = 0) -> ClassValues:
    """Values that count the classes from `first`."""
    return ClassValues(classes, {first + number: number for number in range(len(classes))}, ignored)


def read_class_list(path: str | Path, ignore: int | None) -> ClassValues:
    """The classes of a text file with a name a line, in the order of their values from 0.

    Where every line is `VALUE: NAME`, the values are those stated. Empty lines and lines that begin with #
    are left out. `ignore` is the value of ignored pixels; None is 255 or, where that is a class, 65535.

    Raises:
        UserError: the file cannot be read, is empty, states a value or a name twice or a value that no mask
            can hold, or the ignored value is a class.
    """
    where = printable(path)
    try:
        lines = read_small_text(Path(path).expanduser(), MOST_BYTES).splitlines()
    except UserError as error:
        raise UserError(f"cannot read the class list: {error}; give a file with a class a line") from error
    lines = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UserError(f"the class list {where} names no class; write a class a line")
    stated = [line.partition(":") for line in lines]
    if all(value.strip().isdecimal() and name.strip() for value, _, name in stated):
        if endless := [value for value, _, _ in stated if len(value) > LONGEST_VALUE]:
            raise UserError(
                f"the class list {where} states the value {endless[0][:LONGEST_VALUE]}…; masks hold 0 to "
                f"{VALUES - 1}"
            )
        values, classes = [int(value) for value, _, _ in stated], [name.strip() for _, _, name in stated]
    else:
        values, classes = list(range(len(lines))), lines
    for what, items in (("value", values), ("class", classes)):
        repeated = [item for number, item in enumerate(items) if item in items[:number]]
        if repeated:
            raise UserError(f"the class list {where} states the {what} {repeated[0]} twice; leave one out")
    if max(values) >= VALUES:
        raise UserError(
            f"the class list {where} states the value {max(values)}; masks hold 0 to {VALUES - 1}"
        )
    if ignore is not None and not 0 <= ignore < VALUES:
        raise UserError(f"data.ignore is {ignore}, but a mask holds 0 to {VALUES - 1}")
    if ignore in values:
        raise UserError(
            f"data.ignore is {ignore}, which {where} names as the class {classes[values.index(ignore)]}; "
            "give every line of the list its value, as `VALUE: NAME`, and leave out the ignored one"
        )
    free = [value for value in (IGNORE, WIDE_IGNORE) if value not in values]
    numbers = {value: number for number, value in enumerate(values)}
    return ClassValues(classes, numbers, free[:1] if ignore is None else [ignore])
