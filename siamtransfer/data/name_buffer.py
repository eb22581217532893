"""Many file names in little memory: their bytes one after the other, and where each ends."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np


class NameBuffer(Sequence[bytes]):
    """N names as one run of bytes and N+1 positions: 8 bytes a name beside its own.

    A list of bytes takes 41 and, rounded up, up to 15 more; of 14 million names that is a gigabyte.
    """

    def __init__(self, names: Iterable[bytes] = ()):
        self._bytes, self._ends = bytearray(), array("q", [0])
        self.extend(list(names))

    def extend(self, names: Sequence[bytes]) -> None:
        """Adds names behind the others; not after `arrays` was called."""
        end = self._ends[-1]
        if isinstance(names, NameBuffer):
            self._bytes += names._bytes
            self._ends.extend(end + each for each in names._ends[1:])
            return
        self._bytes += b"".join(names)
        self._ends.extend(end := end + len(name) for name in names)

    def __iter__(self) -> Iterator[bytes]:
        return (bytes(self._bytes[start:stop]) for start, stop in pairwise(self._ends))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        index %= len(self)
        return bytes(self._bytes[self._ends[index] : self._ends[index + 1]])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The bytes as uint8[bytes] and the positions as int64[N+1], in the same memory."""
        return np.frombuffer(self._bytes, dtype=np.uint8), np.frombuffer(self._ends, dtype=np.int64)


def in_runs(names: Sequence[bytes], runs: Iterable[tuple[int, int]]) -> NameBuffer:
    """The names of each run (its first number, and the one behind its last), in the order of the runs."""
    chosen = NameBuffer()
    for start, stop in runs:
        chosen.extend(names[start:stop])
    return chosen
