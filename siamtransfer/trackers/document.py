"""A record as trackers take it: numbers, parameters, labels, and the files that belong to it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamtransfer.records.metric_names import with_aliases
from siamtransfer.utils.strict_json import flatten, to_json

IDENTITY = ("weights_digest", "train_fingerprint", "test_fingerprint", "images_fingerprint")
"""What of the provenance tells whether two measurements are of the same backbone and images."""


@dataclass(frozen=True)
class Document:
    """A record on its way to a tracker.

    Attributes:
        record: what a program printed.
        beside: files that belong to it and exist, such as the predictions.
        name: among the records of one measurement; empty for the first.
    """

    record: Mapping[str, Any]
    beside: Sequence[Path] = ()
    name: str = ""

    @property
    def task(self) -> str:
        return str(self.record["task"])

    @property
    def title(self) -> str:
        """A short name for people: the task, the file name of the checkpoint where there is one, the name."""
        source = self.record["provenance"].get("backbone") or self.record["provenance"].get("weights")
        parts = [self.task, Path(str(source)).name if source else "", self.name]
        return " ".join(part for part in parts if part)

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics and the cost, with plain aliases; numbers that are not finite are left out."""
        cost = self.record["provenance"].get("cost") or {}
        metrics = with_aliases(dict(self.record["metrics"]))
        return finite_numbers(metrics | {f"cost/{key}": value for key, value in cost.items()})

    @property
    def parameters(self) -> dict[str, str]:
        """The protocol, and what identifies the backbone and the images: flat, as text."""
        protocol = flatten(dict(self.record["protocol"]))
        provenance = self.record["provenance"]
        identity = {key: provenance[key] for key in IDENTITY if provenance.get(key)}
        return {key: as_text(value) for key, value in {**protocol, **identity}.items()}

    @property
    def labels(self) -> dict[str, str]:
        """What runs are found by."""
        provenance = self.record["provenance"]
        found = {"task": self.task, "weights_digest": provenance.get("weights_digest")}
        found |= {"version": (provenance.get("versions") or {}).get("siamtransfer")}
        return {key: str(value) for key, value in found.items() if value}

    @property
    def text(self) -> str:
        """The record as one line of JSON."""
        return to_json(dict(self.record)) + "\n"


def predictions_beside(out: Path | None) -> list[Path]:
    """The file of predictions that belongs to the record `out`, where there is one."""
    path = None if out is None else out.with_suffix(".npz")
    return [path] if path is not None and path.is_file() else []


def finite_numbers(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are finite numbers."""
    return {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def as_text(value: Any) -> str:
    """A value as the text of a parameter: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
