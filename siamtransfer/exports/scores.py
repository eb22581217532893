"""Records of evaluators as scores of a model card: only those of the very weights that are exported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from siamtransfer.exports.network import Network
from siamtransfer.records.predictions import read_record
from siamtransfer.utils.errors import UserError

_INTERVAL = ("ci95_low", "ci95_high")


class Score(NamedTuple):
    """A number of a record.

    Attributes:
        task: the evaluator.
        setting: what the number belongs to, such as k=20/T=0.07; may be empty.
        metric: its name, such as top1.
        value: in percent as a rule, as the evaluator prints it.
        interval: the ends of the 95 % interval, where the record has them.
        train, test: the sets, as the protocol names them; test may say that it is train without the query.
        protocol: the whole protocol.
    """

    task: str
    setting: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    train: str
    test: str
    protocol: dict[str, Any]


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
        scores += _scores_of(record)
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


def _scores_of(record: dict[str, Any]) -> list[Score]:
    metrics, protocol = record["metrics"], record["protocol"]
    numbers = {name: value for name, value in metrics.items() if name.rpartition("/")[2] not in _INTERVAL}
    wanted = protocol.get("metric", "top1")
    chosen = {name: value for name, value in numbers.items() if name.rpartition("/")[2] == wanted} or numbers
    scores = []
    for name, value in chosen.items():
        setting, _, metric = name.rpartition("/")
        ends = [metrics.get(f"{setting}/{end}") for end in _INTERVAL]
        low, high = ends
        scores.append(
            Score(
                record["task"],
                setting.removeprefix(record["task"]).strip("/"),
                metric,
                float(value),
                (float(low), float(high)) if low is not None and high is not None else None,
                str(protocol.get("train", "not stated")),
                str(protocol.get("test", "not stated")),
                protocol,
            )
        )
    return scores
