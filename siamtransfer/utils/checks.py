"""Checks of numbers in a configuration; an error names the key."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from typing import Any

from siamtransfer.utils.errors import UserError


def at_least(key: str, value: float | None, least: float) -> None:
    """Raises UserError unless `value` is None or a finite number from `least`."""
    if value is not None and not least <= value < math.inf:
        raise UserError(f"{key} is {value}, but must be at least {least}")


def above(key: str, value: float | None, bound: float) -> None:
    """Raises UserError unless `value` is None or a finite number above `bound`."""
    if value is not None and not bound < value < math.inf:
        raise UserError(f"{key} is {value}, but must be above {bound}")


def within(key: str, value: float | None, low: float, high: float) -> None:
    """Raises UserError unless `value` is None or a number from `low` to `high`, both included."""
    if value is not None and not low <= value <= high:
        raise UserError(f"{key} is {value}, but must be from {low} to {high}")


def changed(options: Any, *names: str) -> list[str]:
    """Those of the fields `names` of a dataclass that are not at their defaults."""
    found = {option.name: option for option in fields(options)}

    def default(name: str) -> object:
        factory = found[name].default_factory
        return found[name].default if factory is MISSING else factory()

    return [name for name in names if getattr(options, name) != default(name)]


def check_timeout(minutes: float) -> None:
    """Raises UserError unless `minutes` can be the time-out of collectives."""
    if not 0 < minutes < 1e6:
        raise UserError(
            f"hardware.timeout_minutes (evaluators: --timeout-minutes) is {minutes:g}, and must be "
            "above 0 and below a million"
        )
