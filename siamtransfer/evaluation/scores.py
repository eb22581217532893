"""What an evaluator measures, and what happens around every evaluator: runtime, record, files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from siamtransfer.distributed.runtime import Precision, Runtime, start_runtime
from siamtransfer.records.predictions import Predictions, publish
from siamtransfer.records.record import record
from siamtransfer.utils.log import say


@dataclass
class Scores:
    """An evaluator's measurement.

    Attributes:
        metrics: numbers by name; accuracies and average precisions are percentages.
        protocol: every choice that moves the numbers.
        provenance: what the numbers were computed from: digests of weights and files, fingerprints of images.
        predictions: of every scored sample by setting, where there are such.
    """

    metrics: dict[str, float]
    protocol: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    predictions: Predictions | None = None


class EvaluatorOptions(Protocol):
    """The options that `run_evaluator` reads itself."""

    device: str
    precision: Precision
    record: str | None

    def check(self) -> None: ...


C = TypeVar("C", bound=EvaluatorOptions)


def run_evaluator(
    task: str, evaluate: Callable[[C, Runtime], Scores | None], config: C
) -> dict[str, Any] | None:
    """Checks the options, evaluates, and writes the record where `config.record` says; returns the record on
    rank 0, None on the others.

    Raises:
        UserError: the options mean nothing, or whatever `evaluate` raises.
    """
    config.check()
    with start_runtime(config.device, config.precision) as runtime:
        scores = evaluate(config, runtime)
    if scores is None:
        return None
    document = record(task, scores.metrics, scores.protocol, **scores.provenance)
    return publish(document, scores.predictions, config.record)


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
