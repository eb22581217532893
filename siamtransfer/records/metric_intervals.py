"""Where a record keeps the interval of a number: several evaluators name it in several ways.

Light: the terminal asks this module; it imports neither torch nor NumPy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

MAIN_OF_SETTING = ("top1", "mAP", "mAP_11point")
"""The numbers that an interval named after the setting alone (`knn/k=20/T=0.07/ci95_low`) belongs to."""
_ENDS = (("ci95_low", "ci95_high"), ("images_low", "images_high"))


class Interval(NamedTuple):
    """The ends of a 95 % interval, in the unit of its number."""

    low: float
    high: float


def interval_of(name: str, metrics: dict[str, Any]) -> Interval | None:
    """The 95 % interval of the number `name`, or None where the record has none: ends beside the number or
    beside its setting, or half a width (`ci95`) around it."""
    before, _, ending = name.rpartition("/")
    for prefix in [name, before] if ending in MAIN_OF_SETTING else [name]:
        for low, high in _ENDS:
            ends = metrics.get(f"{prefix}/{low}"), metrics.get(f"{prefix}/{high}")
            if ends[0] is not None and ends[1] is not None:
                return Interval(float(ends[0]), float(ends[1]))
    half = half_width_of(name, metrics)
    value = metrics.get(name)
    return None if half is None or value is None else Interval(float(value) - half, float(value) + half)


def half_width_of(name: str, metrics: dict[str, Any]) -> float | None:
    """Half the width of the interval of the number `name`, where the record keeps it in this form."""
    before, _, ending = name.rpartition("/")
    half = metrics.get(f"{before}/ci95" if ending == "mean" else f"{name}/ci95")
    return None if half is None else float(half)
