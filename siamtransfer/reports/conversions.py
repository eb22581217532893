"""Proofs of conversions: records of `to-d2`, `to-torchvision` and `export`, which say that what they wrote
computes what the checkpoint does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamtransfer.leaderboard.collection import read_if_record
from siamtransfer.utils.errors import UserError

TASKS = ("convert/", "export")
LARGEST = ("max_relative_error", "max_relative_difference")


@dataclass(frozen=True)
class ConversionProof:
    """What a record of a conversion proves.

    Attributes:
        weights_digest: of the backbone that was read.
        target: what it was converted to.
        passed: whether the proof ran and passed.
        statement: the outcome in a sentence.
    """

    weights_digest: str
    target: str
    passed: bool
    statement: str


def proofs_in(files: Iterable[Path]) -> list[ConversionProof]:
    """The proofs in those of the files that are records of conversions; damaged files are left out, for the
    collection of measurements tells of them."""
    found = []
    for file in files:
        if file.suffix != ".json":
            continue
        try:
            record = read_if_record(file)
        except UserError:
            continue
        if record is not None and str(record["task"]).startswith(TASKS):
            found.append(_proof_of(record))
    return found


def _proof_of(record: dict[str, Any]) -> ConversionProof:
    metrics, protocol = record["metrics"], record["protocol"]
    errors = {name: value for name, value in metrics.items() if name.rpartition("/")[2] in LARGEST}
    target = str(protocol.get("to") or str(record["task"]).rpartition("/")[2].replace("_", "-"))
    if errors:
        name = max(errors, key=lambda key: errors[key])
        statement = f"proved: the largest relative difference of features is {errors[name]:.1e} ({name})"
    else:
        statement = f"proof {protocol.get('proof', 'not stated')}"
    return ConversionProof(str(record["provenance"].get("weights_digest")), target, bool(errors), statement)
