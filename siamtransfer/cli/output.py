"""The record of a program on stdout: one line of JSON for other programs, a table on a terminal."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Container, Sequence
from typing import Any

from siamtransfer.records.cost import cost_line
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import to_json
from siamtransfer.utils.text import visible

VARIABLE = "SIAMTRANSFER_OUTPUT"
"""The environment variable that chooses json or table, wherever stdout goes."""
FLAGS = {"--json": True, "--no-json": False}
MOST_ROWS = 40  # numbers in a table
MOST_ITEMS = 4  # of a list in the protocol
MOST_TEXT = 90  # characters of an item of the protocol
HIDDEN = ("config", "classes", "remarks", "image_remarks")  # parts of a protocol that fill pages


def wants_json(words: Sequence[str]) -> bool:
    """Whether the record is printed as JSON: as the last flag among the words of the command line says, or
    the environment variable; otherwise where stdout is no terminal.

    Raises:
        UserError: the variable says something else.
    """
    flags = [FLAGS[word] for word in words if word in FLAGS]
    if flags:
        return flags[-1]
    stated = os.environ.get(VARIABLE, "")
    if stated not in ("", "json", "table"):
        raise UserError(f"the environment variable {VARIABLE} is {stated!r}, but must be json or table")
    return stated == "json" if stated else not sys.stdout.isatty()


def without_flags(words: list[str], options: Container[str]) -> list[str]:
    """The words without those that choose the output, which are no options of the program itself."""
    return words if "json" in options else [word for word in words if word not in FLAGS]


def print_record(record: dict[str, Any], *, as_json: bool) -> None:
    """Prints a record as the last thing on stdout; one without metrics is JSON anyway."""
    if as_json or not isinstance(record.get("metrics"), dict):
        print(_in_the_encoding(to_json(record)), flush=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    table = Table(
        title=Text(visible(str(record.get("task", "")))), title_justify="left", box=None, pad_edge=False
    )
    table.add_column("number", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    rows = table_rows(record["metrics"])
    has_intervals = any(interval for _, _, interval, _ in rows)
    if has_intervals:
        table.add_column("95 % interval", no_wrap=True)
    table.add_column("what it means", overflow="fold")
    for name, value, interval, text in rows[:MOST_ROWS]:
        table.add_row(*map(Text, (visible(name), value, *([interval] if has_intervals else []), text)))
    console.print(table)
    if len(rows) > MOST_ROWS:
        console.print(Text(f"and {len(rows) - MOST_ROWS} more numbers; --json prints all"))
    settings = table_of_protocol(record.get("protocol") or {})
    if settings:
        protocol = Table(title=Text("measured with"), title_justify="left", box=None, pad_edge=False)
        protocol.add_column(no_wrap=True)
        protocol.add_column(overflow="fold")
        protocol.show_header = False
        for key, value in settings:
            protocol.add_row(Text(visible(key)), Text(visible(value)))
        console.print(protocol)
    if cost := (record.get("provenance") or {}).get("cost"):
        console.print(Text(f"cost: {cost_line(cost)}"))
    console.print(Text("docs/NUMBERS.md explains the numbers; --json prints the whole record in one line"))
    sys.stdout.flush()


def _in_the_encoding(text: str) -> str:
    """The JSON with the characters that the encoding of stdout lacks as JSON's own escapes; those of Python
    would be no JSON."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text))
    return text


def table_rows(metrics: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(name, value, interval, meaning) of every number; the ends of an interval stand beside their number,
    and numbers of single epochs and aliases are left out."""
    from siamtransfer.records.meanings import STATISTICS, meaning_of
    from siamtransfer.records.metric_names import alias_of

    aliases = {alias_of(name) for name in metrics if alias_of(name) != name}
    rows = []
    for name, value in metrics.items():
        ending = name.rpartition("/")[2]
        if ending.startswith("ci95") or ending in ("images_low", "images_high"):
            continue
        if "/epoch=" in name or name in aliases:
            continue
        meaning = meaning_of(name)
        unit = meaning.unit if meaning else ""
        text = meaning.short if meaning else ""
        if meaning and ending in ("std", "mean") and f"/{ending}" in name and not name.startswith("health/"):
            text = f"{text} ({STATISTICS[ending]})"
        rows.append((name, _number(value, unit), _interval(name, metrics, unit), text))
    return rows


def _interval(name: str, metrics: dict[str, Any], unit: str) -> str:
    from siamtransfer.records.metric_intervals import half_width_of, interval_of

    half = half_width_of(name, metrics)
    if half is not None:
        return f"± {_number(half, unit, show_unit=False)}"
    ends = interval_of(name, metrics)
    return "" if ends is None else " to ".join(_number(end, unit, show_unit=False) for end in ends)


def _number(value: Any, unit: str, *, show_unit: bool = True) -> str:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–" if value is None or isinstance(value, float) else str(value)
    if unit == "%":
        return f"{value:.2f}" + (" %" if show_unit else "")
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e12 else f"{value:.4g}"


def table_of_protocol(protocol: dict[str, Any]) -> list[tuple[str, str]]:
    """The protocol in short: a line for each of its parts, long ones cut."""
    lines = []
    for key, value in protocol.items():
        if key in HIDDEN or value is None:
            continue
        text = _in_short(value)
        lines.append((key.replace("_", " "), text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"))
    return lines


def _in_short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_short(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        items = ", ".join(map(_in_short, value[:MOST_ITEMS]))
        return items + (f", … ({len(value)})" if len(value) > MOST_ITEMS else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
