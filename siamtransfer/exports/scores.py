"""Records of evaluators as scores of a model card: only those of the very weights that are exported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from siamtransfer.exports.network import Network
from siamtransfer.records.predictions import read_record
from siamtransfer.records.scores import Score, scores_of
from siamtransfer.utils.errors import UserError


def read_scores(files: Iterable[str], network: Network) -> list[Score]:
    """The numbers of records, in their order: of each record those of the metric that its protocol names, or
    top-1 accuracy, or all of them where it has neither.

    Raises:
        UserError: a file is no record, or one of other weights, or of another reading of them.
    """
    scores = []
    for file in files:
        record = read_record(file).record
        _require_same_weights(record["provenance"], network, Path(file))
        scores += scores_of(record)
    return scores


def _require_same_weights(provenance: dict[str, Any], network: Network, file: Path) -> None:
    read = network.read
    if provenance.get("weights_digest") != read.digest:
        raise UserError(f"{file} is a record of other weights than those of {read.path}: leave it out")
    reading = provenance.get("reading") or {}
    for name, fact in read.reading.as_dict().items():
        if name in reading and reading[name]["value"] != fact["value"]:
            raise UserError(
                f"{file} was measured with {name} {reading[name]['value']}, and the export has "
                f"{fact['value']}: measure again, or say the same to both"
            )
