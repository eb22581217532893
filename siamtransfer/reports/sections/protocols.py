"""How each column was measured: the whole protocol, what the number means, and who has it."""

from __future__ import annotations

from typing import Any

from siamtransfer.leaderboard import Column
from siamtransfer.records.meanings import meaning_of
from siamtransfer.reports.details import protocol_rows
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources


def protocols_section(sources: Sources) -> Section | None:
    """The protocols of all columns, folded; None where nothing was measured."""
    if not sources.board.columns:
        return None
    context = {"protocols": [_protocol(sources, column) for column in sources.board.columns]}
    note = "Numbers of unlike protocols stand in columns of their own and are never ranked together."
    return Section("protocols", "Protocols", "sections/protocols.html", context, note=note, folded=True)


def _protocol(sources: Sources, column: Column) -> dict[str, Any]:
    meaning = meaning_of(column.metric)
    cells = sources.board.of(column)
    record = next(iter(cells.values())).measurement.record
    return {
        "title": column.title,
        "metric": column.metric,
        "meaning": f"{meaning.short[0].upper()}{meaning.short[1:]}. {meaning.how}" if meaning else "",
        "rows": protocol_rows(record),
        "backbones": ", ".join(backbone.label for backbone in cells),
    }
