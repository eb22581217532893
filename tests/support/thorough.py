"""Further cases of what a test's first ones show: `make test-thorough` runs them, `make test` does not."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest


def more(*values: Any) -> Any:
    """The values of one further case, for `pytest.mark.parametrize`."""
    return pytest.param(*values, marks=pytest.mark.thorough)


def in_turn(first: Collection[Any], second: Collection[Any]) -> list[Any]:
    """All pairs: each of `first` with one of `second`, which take turns, and the others as further cases."""
    return [
        (one, other) if number % len(second) == place else more(one, other)
        for number, one in enumerate(first)
        for place, other in enumerate(second)
    ]
