"""What every evaluator shares around its own work: runtime, record, messages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.distributed import collectives
from siamtransfer.distributed.rank_costs import share_costs
from siamtransfer.distributed.runtime import Precision, Runtime, start_runtime
from siamtransfer.evaluation.unreadable import CURE
from siamtransfer.metering.meter import metered
from siamtransfer.records.predictions import beside_path
from siamtransfer.records.result import Picture, Result
from siamtransfer.trackers.document import Document, predictions_beside
from siamtransfer.trackers.targets import reason_of
from siamtransfer.trackers.track import look_at_trackers, track
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


class EvaluatorOptions(Protocol):
    """The options that `run_evaluator` reads itself."""

    device: str
    precision: Precision
    timeout_minutes: float
    record: str | None
    track: list[str]

    def check(self) -> None: ...


C = TypeVar("C", bound=EvaluatorOptions)
P = ParamSpec("P")


def run_evaluator(evaluate: Callable[[C, Runtime], Result | None], config: C) -> dict[str, Any] | None:
    """Checks the options, evaluates, writes record and predictions where `config.record` says, draws the
    pictures, and sends record and predictions to the trackers of `config.track`.

    Returns the record on rank 0, None on the others.

    Raises:
        UserError: the options mean nothing, or whatever `evaluate` raises.
        ErrorAfterRecord: a picture was not drawn, or a tracker did not take the record, which is written.
    """
    config.check()
    try:
        with start_runtime(
            config.device, config.precision, timeout_minutes=config.timeout_minutes
        ) as runtime:
            if config.track:
                with collectives.own_pace("looking at the trackers"):
                    if runtime.is_main:
                        look_at_trackers(config.track)
            result = evaluate(config, runtime)
            share_costs()
    except UnreadableImage as error:
        if getattr(getattr(config, "data", None), "unreadable", None) != "stop":
            raise
        raise UserError(f"{error} ({CURE})") from error
    if result is None:
        return None
    record = result.publish(config.record)
    failed = _draw(result.pictures)
    if config.track or failed:
        track(_documents(result, record, config.record), config.track, config.record, failed)
    return record


def _draw(pictures: Sequence[Picture]) -> list[str]:
    """Draws them; returns what failed, a part of a sentence for each that is not there."""
    failed = []
    for picture in pictures:
        try:
            picture.write()
        except Exception as error:  # no picture may cost the record
            failed.append(f"{picture.path} was not drawn ({reason_of(error)})")
        else:
            say(f"wrote {picture.path}: {picture.shows}")
    return failed


def _documents(result: Result, record: dict[str, Any], out: str | None) -> list[Document]:
    """The record of a result and those beside it, as trackers take them; `out` is the file of the first."""
    path = Path(out) if out else None
    documents = [Document(record, predictions_beside(path))]
    for name, further in result.beside.items():
        beside = predictions_beside(path and beside_path(path, name))
        documents.append(Document(further.record(), beside, name))
    return documents


def with_cost(measure: Callable[P, Result]) -> Callable[P, Result]:
    """`measure`, with what it cost in the provenance of its result."""

    @functools.wraps(measure)
    def metered_measure(*args: P.args, **kwargs: P.kwargs) -> Result:
        with metered() as meter:
            result = measure(*args, **kwargs)
            return replace(result, provenance={**result.provenance, "cost": meter.read().as_dict()})

    return metered_measure


def say_metrics(metrics: dict[str, float]) -> None:
    """A line for each metric but those of single epochs; an epoch's number is no percentage."""
    for name, value in metrics.items():
        if "/epoch=" not in name:
            say(f"{name:48} {value:6.2f}" + ("" if name.endswith("/epoch") else " %"))


def join_metrics(numbers: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of several checkpoints in one dict; the names of several begin with the checkpoint's
    number, from 1."""
    if len(numbers) == 1:
        return numbers[0]
    return {f"{n}/{name}": value for n, metrics in enumerate(numbers, 1) for name, value in metrics.items()}
