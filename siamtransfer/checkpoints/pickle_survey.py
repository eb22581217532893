"""What a pickle would make, told from its opcodes before anything of it is made.

A pickle is a program for a machine with a stack and a memo. A hundred bytes of it can ask for gigabytes, or
for a key whose hash takes years. Here the program is followed with stand-ins in place of its values: each has
a cost, the number of values that one meets on a walk through it, and a depth. The bounds are far above those
of any checkpoint: see the constants.
"""

from __future__ import annotations

import contextlib
import gc
import pickletools
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from siamtransfer.checkpoints.pickle_values import ATOM, INT, LONG, MOST_DIGITS, Account, TooMuch, Value

MOST_STEPS = 2**20
"""Opcodes of all pickles of a file; a ResNet-50 with its optimiser has 17,000."""
_SHORT = 1024
_MODULE = 200


class Survey(NamedTuple):
    """What a pickle names, and whether it comes to its end.

    Attributes:
        names: its globals as `module.name`, in the order of the file.
        whole: False where it is cut or damaged; then `names` are those before that place.
        steps: its opcodes.
    """

    names: tuple[str, ...]
    whole: bool
    steps: int


def survey(file: IO[bytes], end: int, steps: int = 0) -> Survey:
    """Follows the pickle at the file's position, up to the byte `end`; `steps` were made in earlier ones.

    The file's position is behind the pickle afterwards, where that is whole.

    Raises:
        TooMuch: it asks for more than the bounds.
        OSError: the file cannot be read.
    """
    machine = _Machine(file, end, steps)
    try:
        with _without_collections():
            machine.run()
    except (LookupError, ValueError, EOFError, AttributeError, TypeError):  # an empty stack, a cut, no opcode
        return Survey(tuple(machine.names), False, machine.steps)
    return Survey(tuple(machine.names), True, machine.steps)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """The stand-ins refer to no cycle, and a million of them would be searched for cycles again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Machine:
    """Follows one pickle."""

    def __init__(self, file: IO[bytes], end: int, steps: int):
        self.file, self.end, self.steps = file, end, steps
        self.account = Account(end - file.tell())
        self.names: list[str] = []
        self.stack: list[Value] = []
        self.marks: list[int] = []
        self.memo: dict[int, Value] = {}

    def run(self) -> None:
        """Follows the opcodes up to the last. Raises a LookupError or EOFError where there is none."""
        read, table = self.file.read, _TABLE
        while True:
            code = read(1)
            length, follow = table[code]
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise TooMuch(f"holds a pickle of more than {MOST_STEPS:,} steps")
            if code == b".":
                if not self.stack:
                    raise LookupError
                return
            argument = (read(length) if length > 0 else self._argument(length)) if length else b""
            follow(self, argument)

    def _argument(self, length: int) -> bytes | int:
        """The argument of an opcode; of a long one, which is passed over, the length."""
        if length == pickletools.UP_TO_NEWLINE:
            line = self.file.readline(_SHORT)
            if not line.endswith(b"\n"):
                if len(line) < _SHORT:
                    raise EOFError
                raise TooMuch(f"holds a pickle with a line of more than {MOST_DIGITS:,} characters")
            return line[:-1]
        length = int.from_bytes(self.file.read(_PREFIXES[length]), "little")
        if length > self.end - self.file.tell():
            raise EOFError
        if length > _SHORT:
            self.file.seek(length, 1)
            return length
        return self.file.read(length)

    # What the opcodes do, by the groups of _TABLE.

    def push_atom(self, _: bytes | int) -> None:
        self.stack.append(ATOM)

    def push_int(self, _: bytes | int) -> None:
        self.stack.append(INT)

    def push_long(self, argument: bytes | int) -> None:
        length = argument if isinstance(argument, int) else len(argument)
        if length > MOST_DIGITS:
            raise TooMuch(f"holds an integer of {length:,} bytes")
        self.stack.append(LONG if length >= 8 else INT)

    def push_text(self, argument: bytes | int) -> None:
        if isinstance(argument, int):
            self.stack.append(Value("text", 1 + argument // 8))
        else:
            text = argument.decode("utf-8", "replace") if len(argument) <= _MODULE else ""
            self.stack.append(Value("text", 1 + len(argument) // 8, text=text))

    def push_box(self, _: bytes | int) -> None:
        self.stack.append(Value("box", depth=1))

    def push_global(self, module: bytes | int) -> None:
        name = self._argument(pickletools.UP_TO_NEWLINE)
        assert isinstance(module, bytes) and isinstance(name, bytes)
        self._push_name(f"{module.decode('utf-8', 'replace')}.{name.decode('utf-8', 'replace')}")

    def push_stack_global(self, _: bytes | int) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._push_name(f"{module.text}.{name.text}")

    def _push_name(self, name: str) -> None:
        self.names.append(name)
        self.stack.append(Value("global", text=name))

    def put(self, argument: bytes | int) -> None:
        self._put(int.from_bytes(argument, "little") if isinstance(argument, bytes) else argument)

    def put_line(self, argument: bytes | int) -> None:
        self._put(int(argument))

    def memoize(self, _: bytes | int) -> None:
        self._put(len(self.memo))

    def _put(self, place: int) -> None:
        if not 0 <= place <= MOST_STEPS:
            raise TooMuch(f"holds a pickle whose memo has a place {place:,}")
        self.memo[place] = self.stack[-1]

    def get(self, argument: bytes | int) -> None:
        assert isinstance(argument, bytes)
        self.stack.append(self.memo[int.from_bytes(argument, "little")])

    def get_line(self, argument: bytes | int) -> None:
        self.stack.append(self.memo[int(argument)])

    def mark(self, _: bytes | int) -> None:
        self.marks.append(len(self.stack))

    def pop(self, _: bytes | int) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def pop_mark(self, _: bytes | int) -> None:
        self._since_mark()

    def dup(self, _: bytes | int) -> None:
        self.stack.append(self.stack[-1])

    def skip(self, _: bytes | int) -> None:
        """An opcode that neither takes nor makes a value."""

    def persistent(self, _: bytes | int) -> None:
        self.stack[-1] = ATOM

    def _since_mark(self) -> list[Value]:
        place = self.marks.pop()
        values = self.stack[place:]
        del self.stack[place:]
        return values

    def tuple_since_mark(self, _: bytes | int) -> None:
        self._push_tuple(self._since_mark())

    def tuple_1(self, _: bytes | int) -> None:
        self._push_tuple([self.stack.pop()])

    def tuple_2(self, _: bytes | int) -> None:
        self._push_tuple([self.stack.pop() for _ in range(2)][::-1])

    def tuple_3(self, _: bytes | int) -> None:
        self._push_tuple([self.stack.pop() for _ in range(3)][::-1])

    def _push_tuple(self, values: list[Value]) -> None:
        made = Value("tuple", 1, 1, items=values[:2])
        self.account.grow(made, values)
        self.stack.append(made)

    def list_since_mark(self, _: bytes | int) -> None:
        values = self._since_mark()
        self.push_box(b"")
        self.account.grow(self.stack[-1], values)

    def dict_since_mark(self, _: bytes | int) -> None:
        values = self._since_mark()
        self.push_box(b"")
        self._set(values)

    def frozenset_since_mark(self, _: bytes | int) -> None:
        values = self._since_mark()
        self.push_box(b"")
        self.account.hash(values)
        self.account.grow(self.stack[-1], values)

    def append(self, _: bytes | int) -> None:
        value = self.stack.pop()
        self.account.grow(self.stack[-1], [value])

    def appends(self, _: bytes | int) -> None:
        values = self._since_mark()
        self.account.grow(self.stack[-1], values)

    def add_items(self, _: bytes | int) -> None:
        values = self._since_mark()
        self.account.hash(values)
        self.account.grow(self.stack[-1], values)

    def set_item(self, _: bytes | int) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def set_items(self, _: bytes | int) -> None:
        self._set(self._since_mark())

    def _set(self, values: list[Value]) -> None:
        self.account.hash(values[::2])
        self.account.grow(self.stack[-1], values)

    def call(self, _: bytes | int) -> None:
        """REDUCE, NEWOBJ: a global and a tuple of its arguments."""
        arguments, function = self.stack.pop(), self.stack.pop()
        self._call(function, arguments)

    def call_with_keywords(self, _: bytes | int) -> None:
        keywords, arguments, function = (self.stack.pop() for _ in range(3))
        self.account.grow(arguments, [keywords])
        self._call(function, arguments)

    def call_since_mark(self, _: bytes | int) -> None:
        function, *values = self._since_mark()
        self._push_tuple(values)
        self._call(function, self.stack.pop())

    def call_global(self, module: bytes | int) -> None:
        """INST: its global is an argument, and what it takes is behind the mark."""
        self._push_tuple(self._since_mark())
        arguments = self.stack.pop()
        self.push_global(module)
        self._call(self.stack.pop(), arguments)

    def _call(self, function: Value, arguments: Value) -> None:
        self.stack.append(self.account.call(function, arguments))

    def build(self, _: bytes | int) -> None:
        state = self.stack.pop()
        self.account.count(state.size)
        if not self.stack:
            raise LookupError


_PREFIXES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""Bytes of a length before an argument."""
_FOLLOW: dict[Callable[[_Machine, bytes | int], None], str] = {
    _Machine.push_atom: "NONE NEWTRUE NEWFALSE BINFLOAT FLOAT EXT1 EXT2 EXT4 NEXT_BUFFER PERSID",
    _Machine.push_int: "BININT BININT1 BININT2",
    _Machine.push_long: "INT LONG LONG1 LONG4",
    _Machine.push_text: "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8",
    _Machine.push_box: "EMPTY_LIST EMPTY_DICT EMPTY_SET",
    _Machine.tuple_since_mark: "TUPLE",
    _Machine.tuple_1: "TUPLE1",
    _Machine.tuple_2: "TUPLE2",
    _Machine.tuple_3: "TUPLE3",
    _Machine.list_since_mark: "LIST",
    _Machine.dict_since_mark: "DICT",
    _Machine.frozenset_since_mark: "FROZENSET",
    _Machine.append: "APPEND",
    _Machine.appends: "APPENDS",
    _Machine.add_items: "ADDITEMS",
    _Machine.set_item: "SETITEM",
    _Machine.set_items: "SETITEMS",
    _Machine.push_global: "GLOBAL",
    _Machine.push_stack_global: "STACK_GLOBAL",
    _Machine.call: "REDUCE NEWOBJ",
    _Machine.call_with_keywords: "NEWOBJ_EX",
    _Machine.call_since_mark: "OBJ",
    _Machine.call_global: "INST",
    _Machine.build: "BUILD",
    _Machine.put: "BINPUT LONG_BINPUT",
    _Machine.put_line: "PUT",
    _Machine.memoize: "MEMOIZE",
    _Machine.get: "BINGET LONG_BINGET",
    _Machine.get_line: "GET",
    _Machine.mark: "MARK",
    _Machine.pop: "POP",
    _Machine.pop_mark: "POP_MARK",
    _Machine.dup: "DUP",
    _Machine.skip: "PROTO FRAME READONLY_BUFFER STOP",
    _Machine.persistent: "BINPERSID",
}
_BY_NAME = {name: follow for follow, names in _FOLLOW.items() for name in names.split()}


def _push_nothing(machine: _Machine, _: bytes | int) -> None:
    machine.stack.append(Value("tuple", 1, 1))


_BY_NAME["EMPTY_TUPLE"] = _push_nothing
_TABLE = {
    opcode.code.encode("latin-1"): (opcode.arg.n if opcode.arg else 0, _BY_NAME[opcode.name])
    for opcode in pickletools.opcodes
}
"""By opcode the length of its argument, as pickletools has it, and what follows from it."""
