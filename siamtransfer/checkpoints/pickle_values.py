"""The values of a pickle as stand-ins: what it would cost to make, to copy and to hash them.

Most values are made by opcodes, of which the survey allows so many; a copy of a list, the hash of a tuple
and a call that reserves memory are dear at the price of one. They are counted here, and refused beyond the
bounds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST_DEPTH = 100
"""Levels of lists, tuples and dicts in each other."""
MOST_WORK = 2**23
"""Values, and eighths of a text's length, that are copied or hashed, beyond the bytes of the pickle."""
MOST_DIGITS = 1000
"""Bytes of an integer, and characters of a line."""
MOST_ODD_KEYS = 10_000
"""Keys that are neither texts nor ordinary integers, which can be made to collide."""
# What makes a copy of its argument, or hashes each value in it.
_COPIES = re.compile(
    r"(builtins|__builtin__)\.(list|dict|tuple|set|frozenset|str|unicode|int|long|float|bool|complex|bytes|bytearray)"
    r"|collections\.(OrderedDict|Counter|defaultdict)|_codecs\.encode|torch\.Size"
)
_OF_VALUES = re.compile(r"(builtins|__builtin__)\.(list|dict|tuple|set|frozenset)|collections\.\w+")
# What makes as many bytes as its argument says.
_RESERVES = re.compile(
    r"(builtins|__builtin__)\.(bytes|bytearray)|torch\.([a-z]+\.)*\w*(Tensor|Storage)|numpy\.ndarray"
)
LATIN = ("latin1", "latin-1", "iso-8859-1")
"""Names of the encoding in which old protocols keep bytes."""


class TooMuch(Exception):
    """A file asks for more than the bounds; the message is the rest of a sentence that begins with its
    name."""

    def __init__(self, what: str):
        super().__init__(
            f"{what}, which no checkpoint needs: get the file again, or save its tensors alone, as "
            "torch.save(model.state_dict(), ...)"
        )


class Value:
    """Stands for a value of the pickle.

    Attributes:
        cost: values that one meets on a walk through it.
        depth: levels of containers.
        kind: `text`, `int`, `long` (of eight bytes or more), `tuple`, `global`; `box` and `atom` for the
        others. text: of a short text, or the name of a global. items: the first two of a tuple. size: number
        of values directly in it.
    """

    __slots__ = ("cost", "depth", "items", "kind", "size", "text")

    def __init__(
        self, kind: str, cost: int = 1, depth: int = 0, text: str = "", items: Sequence[Value] = ()
    ) -> None:
        self.kind = kind
        self.cost = cost
        self.depth = depth
        self.text = text
        self.items = items
        self.size = 0


ATOM, INT, LONG = Value("atom"), Value("int"), Value("long")


class Account:
    """What a pickle copies and hashes; `length` is its number of bytes."""

    def __init__(self, length: int):
        self.most = MOST_WORK + length
        self.work = self.odd_keys = 0

    def grow(self, holder: Value, values: Sequence[Value]) -> None:
        """Puts values into a container."""
        for value in values:
            holder.cost += value.cost
            if value.depth >= holder.depth:
                holder.depth = value.depth + 1
        holder.size += len(values)
        if holder.depth > MOST_DEPTH:
            raise TooMuch(f"holds lists, tuples or dicts in each other, more than {MOST_DEPTH} levels deep")

    def hash(self, keys: Sequence[Value]) -> None:
        """Takes values as keys of a dict or into a set."""
        for key in keys:
            if key.kind == "tuple":
                self.count(key.cost)
            self.odd_keys += key.kind not in ("text", "int")
        if self.odd_keys > MOST_ODD_KEYS:
            raise TooMuch(
                f"holds more than {MOST_ODD_KEYS:,} keys that are neither texts nor ordinary integers"
            )

    def count(self, cost: int) -> None:
        """Counts values that are copied or hashed."""
        self.work += cost
        if self.work > self.most:
            raise TooMuch("holds a pickle that repeats what is in it, to millions of values")

    def call(self, function: Value, arguments: Value) -> Value:
        """What a call of a global would make."""
        first = arguments.items[0] if arguments.items else ATOM
        if _RESERVES.fullmatch(function.text) and first.kind in ("int", "long"):
            raise TooMuch(f"calls {function.text} to reserve memory")
        if function.text == "_codecs.encode":
            encoding = arguments.items[1].text if len(arguments.items) > 1 else "utf-8"
            if encoding not in LATIN:
                raise TooMuch(f"encodes a text as {encoding!r}")
        if _OF_VALUES.fullmatch(function.text) and first.kind == "text":
            raise TooMuch(f"calls {function.text} of a text, to take it to pieces")
        if not _COPIES.fullmatch(function.text):
            return Value("box", depth=1)
        self.count(arguments.cost)
        return Value("box", arguments.cost, arguments.depth)
