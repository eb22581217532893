"""Model cards of backbones from their records: Markdown with the metadata that the Hugging Face Hub expects.

A card names no folder of the machine that measured, for it is made to be published.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from siamtransfer.leaderboard import BackboneId, Measurement
from siamtransfer.records.scores import LICENSE, Score, card_metadata, reading_lines, score_of, scores_table
from siamtransfer.reports.sources import Sources


def card_file(one: BackboneId, among: Sequence[BackboneId]) -> str:
    """The name of a backbone's card, which no other has."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", one.label).strip("-.") or "backbone"
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", other.label).strip("-.") or "backbone" for other in among]
    number = among.index(one)
    return f"card-{plain}{f'-{number + 1}' if names.count(plain) > 1 else ''}.md"


def model_card(sources: Sources, one: BackboneId) -> str:
    """The card of a backbone: what it is, its scores and protocols, how it was read, what was proved."""
    measured = [measurement for measurement in sources.measurements if measurement.backbone == one]
    provenance = measured[0].record["provenance"]
    scores = _scores(sources, one)
    metadata = card_metadata(one.label, scores, method=None, data=None, libraries=())
    proofs = [proof for proof in sources.proofs if proof.weights_digest == one.digest]
    parts = [
        f"---\n{metadata}\n{LICENSE}\n---",
        f"# {_plain(one.label)}",
        _what(measured[0]),
        "## Scores",
        scores_table(scores) if scores else "Not measured.",
        "## How the weights were read",
        reading_lines(provenance.get("reading") or {}, provenance.get("assumptions") or ()),
        "## Proof",
        "\n".join(f"- {proof.target}: {proof.statement}." for proof in proofs)
        or "No conversion of these weights is among the records.",
        "## License",
        "Not stated by the checkpoint. Whoever publishes these weights states it in the first lines here.",
    ]
    return "\n\n".join(parts) + "\n"


def _scores(sources: Sources, one: BackboneId) -> list[Score]:
    """The main numbers of a backbone, in the order of the columns."""
    cells = [(column, sources.board.cells.get((one, column))) for column in sources.board.columns]
    return [score_of(cell.measurement.record, column.metric) for column, cell in cells if cell is not None]


def _what(measurement: Measurement) -> str:
    provenance: dict[str, Any] = measurement.record["provenance"]
    architecture = provenance.get("architecture") or {}
    source = measurement.source
    file = source if ":" in source.partition("/")[0] else PurePath(source).name
    sentences = [f"Weights of `{_plain(file)}`"]
    if architecture.get("name"):
        sentences.append(f", a `{architecture['name']}`")
    if provenance.get("format"):
        sentences.append(f", read as {provenance['format']}, branch {provenance.get('branch')}")
    digest = provenance.get("weights_digest")
    end = (
        f". The digest of the weights (SHA-256 over names, shapes and numbers) is `{digest}`."
        if digest
        else "."
    )
    return "".join(sentences) + end


def _plain(text: str) -> str:
    """A name without what Markdown would read as code or a new line."""
    return re.sub(r"[`\r\n]", "'", text)
