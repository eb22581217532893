"""What programs print and record of how a checkpoint was read."""

from __future__ import annotations

from typing import Any

from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.utils.log import say


def say_assumptions(read: ReadBackbone) -> None:
    """Prints what nothing states and the reader assumed, a line each; nothing where all is known."""
    for sentence in read.reading.assumptions():
        say(f"note: {read.path}: {sentence}")


def reading_provenance(read: ReadBackbone | None) -> dict[str, Any]:
    """The entries `reading` and `assumptions` of a record; None where there is no backbone, as for pixels."""
    if read is None:
        return {"reading": None, "assumptions": None}
    return {"reading": read.reading.as_dict(), "assumptions": read.reading.assumptions()}


def frozen_provenance(source: str, read: ReadBackbone | None) -> dict[str, Any]:
    """What identifies a network in a record; `read` is None for raw pixels."""
    return {
        "backbone": source,
        "architecture": read.architecture.as_dict() if read else None,
        "format": read.format if read else None,
        "branch": read.branch if read else None,
        "weights_digest": read.digest if read else None,
        **reading_provenance(read),
    }
