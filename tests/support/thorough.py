"""Further cases of what a test's first ones show: `make test-thorough` runs them, `make test` does not."""

from __future__ import annotations

from typing import Any

import pytest


def more(*values: Any) -> Any:
    """The values of one further case, for `pytest.mark.parametrize`."""
    return pytest.param(*values, marks=pytest.mark.thorough)
