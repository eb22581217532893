"""What each number of a record means: unit, range, which way is better, how it is computed.

The table is meanings.yaml. `meaning_of` explains a name; docs/NUMBERS.md holds `as_markdown`, and a test
compares them. The module imports neither torch nor NumPy: the terminal asks it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

Better = Literal["higher", "lower", "neither"]


class Meaning(NamedTuple):
    """What a number means.

    Attributes:
        names: a regular expression of the whole name, without the beginnings and endings below.
        example: a name.
        unit: % (per cent), or what else is counted; empty for a plain number.
        low, high: its range as text; empty where it has no bound.
        better: which way is better.
        short: in a few words.
        how: how it is computed, and where it comes from.
    """

    names: str
    example: str
    unit: str
    range: str
    better: Better
    short: str
    how: str


STATISTICS = {
    "ci95_low": "lower end of the 95 % interval",
    "ci95_high": "upper end of the 95 % interval",
    "ci95": "half the width of the 95 % interval",
    "images_low": "lower end of the 95 % interval over resampled images",
    "images_high": "upper end of the 95 % interval over resampled images",
    "mean": "mean over draws, trials or objects",
    "std": "standard deviation over draws or trials",
    "difference": "difference of two records",
    "first": "value of the first record",
    "second": "value of the second record",
}
"""Endings that say which statistic of a number is meant."""

_BEGINNINGS = re.compile(r"(\d+/|baseline/(untrained|pixels|[\w-]+)/(?=knn/)|baseline/(untrained|pixels)/)")


def meaning_of(name: str) -> Meaning | None:
    """What a number means by its name; None where this table does not know it (a user's own).

    Numbers of several checkpoints begin with the checkpoint's number (`2/knn/…`), baselines with their name
    (`baseline/pixels/…`).
    """
    while found := _BEGINNINGS.match(name):
        name = name[found.end() :]
    for whole in dict.fromkeys((name, split_statistic(name)[0])):
        for row, pattern in _patterns():
            if pattern.fullmatch(whole):
                return row
    return None


def split_statistic(name: str) -> tuple[str, str | None]:
    """The name of a number without the endings of STATISTICS, and the last of them; `compare/…` keeps them,
    for there they are what is measured."""
    last = None
    while name not in ("health/std", "std") and not name.startswith("compare/"):
        before, slash, word = name.rpartition("/")
        if not slash or word not in STATISTICS:
            break
        name, last = before, last or word
    return name, last


@functools.cache
def meanings() -> dict[str, list[Meaning]]:
    """The rows of the table by subject, in its order."""
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return {subject: [Meaning(**row) for row in rows] for subject, rows in yaml.safe_load(text).items()}


def as_markdown() -> str:
    """The table as sections of a page."""
    lines = []
    for subject, rows in meanings().items():
        lines += [
            f"## {subject}",
            "",
            "| number | unit, range | better | what it means |",
            "|---|---|---|---|",
        ]
        for row in rows:
            kind = ", ".join(filter(None, (row.unit, row.range))) or "–"
            lines.append(f"| `{row.example}` | {kind} | {row.better} | {row.short}. {row.how} |")
        lines.append("")
    return "\n".join(lines)


@functools.cache
def _patterns() -> list[tuple[Meaning, re.Pattern[str]]]:
    return [(row, re.compile(row.names)) for rows in meanings().values() for row in rows]
