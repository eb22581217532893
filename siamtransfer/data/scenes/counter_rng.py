"""Random integers as a pure function of a key: the same on every machine, in any order, with any library."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class CounterRng:
    """Independent random integers for n keys; each number is a hash of (key, count of earlier numbers).

    A key is a sequence of integers of which one or more may be arrays[n]; together they give n sequences of
    numbers. The hash is splitmix64 (Steele, Lea and Flood, OOPSLA 2014). Its output, unlike that of numpy's
    distributions, does not depend on the release of a library.
    """

    def __init__(self, *key: int | np.ndarray):
        state = np.zeros(1, np.uint64)
        for word in key:
            state = _mix(state ^ np.asarray(word).astype(np.uint64))
        self._state, self._used = state, 0

    def below(self, bound: int | np.ndarray, *shape: int) -> np.ndarray:
        """int64[n, *shape], uniform over 0 .. bound-1; `bound` broadcasts and is at most 2**31."""
        count = int(np.prod(shape, dtype=np.int64))
        counter = np.arange(self._used, self._used + count, dtype=np.uint64)
        self._used += count
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
