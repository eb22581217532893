"""What each backbone is: its source, how it was read, what was assumed, what was proved."""

from __future__ import annotations

from typing import Any

from siamtransfer.leaderboard import BackboneId, Measurement
from siamtransfer.reports.cards import card_file, model_card
from siamtransfer.reports.details import Rows, text_of
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources
from siamtransfer.reports.standings import Standings
from siamtransfer.reports.wording import sentence
from siamtransfer.utils.text import printable


def backbones_section(sources: Sources) -> Section | None:
    """A card for each backbone; None where there is none."""
    if not sources.board.backbones:
        return None
    standings = Standings(sources)
    order = [*standings.contenders, *standings.baselines]
    files = {card_file(one, order): model_card(sources, one) for one in standings.contenders}
    names = dict(zip(standings.contenders, files, strict=True))
    cards = [_card(sources, one, one in standings.baselines, names.get(one)) for one in order]
    note = "What the weights are, how they were read, and what nobody states and was assumed."
    return Section(
        "backbones",
        "Backbones",
        "sections/backbones.html",
        {"cards": cards, "open": len(cards) <= 2},
        data={"files": files},
        note=note,
    )


def _card(sources: Sources, one: BackboneId, baseline: bool, file: str | None) -> dict[str, Any]:
    measured = [measurement for measurement in sources.measurements if measurement.backbone == one]
    provenance = measured[0].record["provenance"]
    reading, assumptions = provenance.get("reading") or {}, provenance.get("assumptions")
    return {
        "label": one.label,
        "baseline": baseline,
        "rows": _facts(measured[0]),
        "records": len(measured),
        "reading": [
            (name.replace("_", " "), text_of(fact["value"]), str(fact["source"]))
            for name, fact in reading.items()
        ],
        "assumptions": None if assumptions is None else [sentence(one) for one in assumptions],
        "proofs": [proof for proof in sources.proofs if proof.weights_digest == one.digest],
        "file": file,
    }


def _facts(measurement: Measurement) -> Rows:
    """What identifies a backbone."""
    provenance = measurement.record["provenance"]
    architecture = provenance.get("architecture") or {}
    name = architecture.get("name") if isinstance(architecture, dict) else architecture
    further = {key: value for key, value in architecture.items() if key != "name" and value is not None}
    rows = [
        ("source", printable(measurement.source)),
        ("architecture", f"{name}{f' ({text_of(further)})' if further else ''}" if name else None),
        ("format", provenance.get("format")),
        ("branch", provenance.get("branch")),
        ("weights", provenance.get("weights_digest")),
    ]
    return [(key, str(value)) for key, value in rows if value]
