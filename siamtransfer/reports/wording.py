"""Numbers and lists in sentences and tables of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST_NAMES = 4  # in a sentence


def number_text(value: float | None, unit: str = "%") -> str:
    """A number as tables show it: percentages with one digit after the point; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1f}" if unit == "%" else f"{value:.4g}"


def interval_text(low: float | None, high: float | None, unit: str = "%") -> str:
    """An interval as tables show it, empty where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number_text(low, unit)} to {number_text(high, unit)}"


def sentence(text: str) -> str:
    """A remark as a sentence: with a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 task`, `3 tasks`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """`a`, `a and b`, `a, b and c`; the rest of a long list is counted."""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
