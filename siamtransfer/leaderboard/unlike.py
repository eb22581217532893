"""Columns of one number whose protocols differ: titles that tell them apart, sentences that say by what."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from siamtransfer.leaderboard.columns import Column, comparable
from siamtransfer.leaderboard.measurement import Measurement
from siamtransfer.records.likeness import compared_entries
from siamtransfer.utils.text import printable

_IN_TITLE = 3  # keys by which columns differ
_DIGEST, _SHOWN = 40, 8  # text without a space as long as this is a digest, of which so much is shown
_LONGEST = 40


def name_apart(columns: Mapping[Column, Measurement]) -> dict[Column, str]:
    """Titles that no other column has, for columns with a measurement each: behind one that several have
    stands by which keys of the protocol they differ, or a number."""
    count = Counter(column.title for column in columns)
    titles: dict[Column, str] = {}
    for title in count:
        alike = [column for column in columns if column.title == title]
        if len(alike) == 1:
            titles[alike[0]] = title
            continue
        compared = [compared_entries(comparable(columns[column].record, column.metric)) for column in alike]
        keys = _differing(compared)
        marks = [", ".join(_mark(key, entries) for key in keys[:_IN_TITLE]) for entries in compared]
        for number, (column, mark) in enumerate(zip(alike, marks, strict=True), 1):
            alone = bool(mark) and marks.count(mark) == 1
            titles[column] = f"{title} ({mark if alone else f'{mark}, {number}'.removeprefix(', ')})"
    return titles


def sentences_on(columns: Mapping[Column, Measurement]) -> list[str]:
    """A sentence for every column of a number but the first: by which key its protocol differs from that of
    the first, so that the two are not ranked together."""
    together: dict[tuple[str, str], list[Column]] = defaultdict(list)
    for column in columns:
        together[column.metric, column.title].append(column)
    sentences = []
    for (_, title), (column, *others) in together.items():
        first = columns[column]
        for other in (columns[other] for other in others):
            compared = [
                compared_entries(comparable(measurement.record, column.metric))
                for measurement in (first, other)
            ]
            keys = _differing(compared)
            if not keys:
                continue  # other labels, which the board says
            values = [_in_short(half[keys[0]]) if keys[0] in half else "absent" for half in compared]
            more = f" (and {len(keys) - 1} more keys)" if len(keys) > 1 else ""
            sentences.append(
                f"{title}: {printable(first.path)} and {printable(other.path)} are not ranked together, for "
                f"{keys[0]} is {values[0]} in the first and {values[1]} in the second{more}"
            )
    return sentences


def _differing(compared: Sequence[dict[str, Any]]) -> list[str]:
    """The keys in which entries differ; those of the protocol first."""
    keys = dict.fromkeys(key for entries in compared for key in entries)
    absent = object()
    differing = [
        key
        for key in keys
        if any(entries.get(key, absent) != compared[0].get(key, absent) for entries in compared)
    ]
    return sorted(differing, key=lambda key: not key.startswith("protocol."))


def _mark(key: str, entries: dict[str, Any]) -> str:
    name = key.removeprefix("protocol.").removeprefix("provenance.")
    return f"{name} {_in_short(entries[key])}" if key in entries else f"no {name}"


def _in_short(value: Any) -> str:
    text = printable(str(value))
    if len(text) >= _DIGEST and " " not in text:
        return text[:_SHOWN]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
