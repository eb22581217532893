"""What the popover of a number shows: its meaning, the whole protocol, and what it was computed from."""

from __future__ import annotations

import shlex
from typing import Any

from siamtransfer.cli.output import table_rows
from siamtransfer.leaderboard import Measurement
from siamtransfer.leaderboard.missing import PROGRAM, program_words
from siamtransfer.records.meanings import Meaning, meaning_of
from siamtransfer.reports.sources import Sources
from siamtransfer.utils.strict_json import flatten
from siamtransfer.utils.text import printable

Rows = list[tuple[str, str]]
MOST_ITEMS = 12  # of a list in a protocol
_VERSIONS = ("siamtransfer", "torch", "timm", "numpy")


def details_of(sources: Sources) -> dict[str, Any]:
    """The popovers' data: `measurements` in the order of the sources, with protocols and meanings once each.

    Returns:
        measurements (each with backbone, protocol = a place in `protocols`, numbers = {name: (value,
        interval)}, source and command), protocols (rows of key and value), meanings, and names = {name of a
        number: a place in `meanings`}.
    """
    protocols: list[Rows] = []
    meanings: list[Meaning] = []
    names: dict[str, int] = {}
    measurements = []
    for measurement in sources.measurements:
        record = measurement.record
        for name in record["metrics"]:
            meaning = meaning_of(name)
            if meaning is not None:
                names[name] = _place(meaning, meanings)
        measurements.append(
            {
                "backbone": measurement.backbone.label,
                "protocol": _place(protocol_rows(record), protocols),
                "numbers": {
                    name: (value, interval) for name, value, interval, _ in table_rows(record["metrics"])
                },
                "source": source_rows(measurement),
                "command": command_of(record),
            }
        )
    return {
        "measurements": measurements,
        "protocols": protocols,
        "meanings": [meaning._asdict() for meaning in meanings],
        "names": names,
    }


def protocol_rows(record: dict[str, Any]) -> Rows:
    """The protocol of a record, every choice in a row."""
    rows = [("task", str(record["task"]))]
    for key, value in flatten(record["protocol"]).items():
        if value is not None and not key.startswith("config."):
            rows.append((key.replace("_", " ").replace(".", " · "), text_of(value)))
    return rows


def source_rows(measurement: Measurement) -> Rows:
    """What the numbers of a record were computed from."""
    provenance = measurement.record["provenance"]
    versions = provenance.get("versions") or {}
    rows = [
        ("backbone", printable(measurement.source)),
        ("weights (SHA-256)", provenance.get("weights_digest")),
        ("images fitted on", _short(provenance.get("train_fingerprint"))),
        ("images scored on", _short(provenance.get("test_fingerprint"))),
        ("record", printable(measurement.path)),
        ("measured", provenance.get("time")),
        ("versions", ", ".join(f"{name} {versions[name]}" for name in _VERSIONS if name in versions)),
        ("commit", provenance.get("commit")),
    ]
    return [(key, str(value)) for key, value in rows if value]


def command_of(record: dict[str, Any]) -> str:
    """The command line that measured, as it can be pasted; empty where the record has none."""
    words = program_words(record)
    return "" if words is None else shlex.join([PROGRAM, *words])


def text_of(value: Any) -> str:
    """A value of a protocol in a line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        more = len(value) - MOST_ITEMS
        return ", ".join(map(text_of, value[:MOST_ITEMS])) + (f" … ({len(value)} in all)" if more > 0 else "")
    if isinstance(value, dict):
        return ", ".join(f"{key} {text_of(item)}" for key, item in value.items())
    return str(value)


def _short(digest: Any) -> str | None:
    return f"{digest[:16]}…" if isinstance(digest, str) else None


def _place(item: Any, items: list[Any]) -> int:
    """The place of an item in a list, to which it is added where it is new."""
    if item not in items:
        items.append(item)
    return items.index(item)
