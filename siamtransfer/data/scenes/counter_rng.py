"""Random integers as a pure function of a key: the same on every machine, in any order, with any library."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Dice:
    """Independent random integers for n keys, each number a hash of (key, how many were drawn before).

    A key is a sequence of integers of which one or more may be arrays[n]; together they name n sequences of
    numbers. The hash is splitmix64 (Steele, Lea and Flood, OOPSLA 2014), whose output, unlike that of numpy's
    distributions, no release of a library can change.
    """

    def __init__(self, *key: int | np.ndarray):
        state = np.zeros(1, np.uint64)
        for part in key:
            state = _mix(state ^ np.asarray(part).astype(np.uint64))
        self._state, self._drawn = state, 0

    def below(self, bound: int | np.ndarray, *shape: int) -> np.ndarray:
        """int64[n, *shape], uniform over 0 .. bound-1; `bound` broadcasts and is at most 2**31."""
        count = int(np.prod(shape, dtype=np.int64))
        counter = np.arange(self._drawn, self._drawn + count, dtype=np.uint64)
        self._drawn += count
        bits = _mix(self._state[:, None] + counter * _GOLDEN) >> np.uint64(33)
        return (bits.astype(np.int64).reshape(-1, *shape) * bound) >> 31

    def between(self, low: int | np.ndarray, high: int | np.ndarray, *shape: int) -> np.ndarray:
        """int64[n, *shape], uniform over low .. high, both included."""
        return low + self.below(high - low + 1, *shape)


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
