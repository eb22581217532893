"""A measurement of a backbone: its record, which backbone it measured, and its predictions when asked for."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamtransfer.records.predictions import Kept, read_predictions_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import to_json

NOT_SCORES = frozenset(
    {
        *("pretrain", "compare", "rank", "suite", "report", "map", "inspect", "doctor", "pack", "identify"),
        *("features", "embed", "curate", "neighbours", "predict", "gradients"),
        *("export", "to-d2", "to-torchvision"),
    }
)
"""Tasks whose records do not say how good a backbone is."""
FEATURE_FILES = "feature files"
_IN_MEMORY = 512  # predictions that are kept after they were read


@dataclass(frozen=True)
class BackboneId:
    """Which backbone was measured; equal ones have the same weights, read in the same way.

    Attributes:
        digest: of the weights; `pixels` for raw pixels, `features:…` for feature files.
        reading: digest of how the weights were read: branch, architecture, normalisation, order of channels
            and the other facts of a reading. The layers that features come from are part of the protocol.
        label: short, and no two backbones of a collection have the same; it takes no part in comparisons.
    """

    digest: str
    reading: str
    label: str = field(compare=False, default="")

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, eq=False)
class Measurement:
    """A record of an evaluator, of one backbone.

    Attributes:
        path: the record's file; records of several backbones give several measurements of one path.
        record: the document; of several backbones the part of this one.
        backbone: what was measured.
        source: the backbone's file or name, as the record has it.
        beside: those of the other backbones of the record.
    """

    path: Path
    record: dict[str, Any]
    backbone: BackboneId
    source: str
    beside: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The evaluator."""
        return str(self.record["task"])

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers by name."""
        return dict(self.record["metrics"])

    @property
    def time(self) -> str:
        """When the record was made, as text that sorts by time; empty where it does not say."""
        return str(self.record["provenance"].get("time") or "")

    def kept(self) -> Kept | None:
        """The predictions, read when this is called first; None where the record names none.

        Raises:
            UserError: the record names predictions and they are absent, damaged or of another record.
        """
        digest = self.record["provenance"].get("predictions_digest")
        return None if digest is None else _read(self.path, str(digest))

    def sound(self) -> Kept | None:
        """The predictions; None also where they cannot be read, which the remarks of a board say."""
        try:
            return self.kept()
        except UserError:
            return None


@functools.lru_cache(maxsize=_IN_MEMORY)
def _read(path: Path, digest: str) -> Kept:
    return read_predictions_of(path, {"provenance": {"predictions_digest": digest}})


@dataclass(frozen=True)
class Part:
    """What a record says of one backbone: the document of it, and what identifies the backbone.

    Attributes:
        record: with the metrics, protocol and provenance of this backbone.
        source: its file or name.
        digest, reading: see BackboneId.
    """

    record: dict[str, Any]
    source: str
    digest: str
    reading: str


def parts_of(record: dict[str, Any]) -> Iterator[Part]:
    """The backbones that a record measures: one as a rule, several of `diagnose` and `detection`; none of the
    programs that do not score."""
    if record["task"] in NOT_SCORES or str(record["task"]).startswith("convert/"):
        return
    provenance = record["provenance"]
    if isinstance(checkpoints := provenance.get("checkpoints"), list):
        yield from _parts_of_checkpoints(record, checkpoints)
    elif isinstance(arms := provenance.get("arms"), list):
        yield from _parts_of_arms(record, arms)
    else:
        identity = _identity(provenance)
        if identity is not None:
            yield Part(record, *identity)


def _parts_of_checkpoints(record: dict[str, Any], checkpoints: list[Any]) -> Iterator[Part]:
    """`diagnose` numbers its checkpoints from 1, in the names of metrics where there are several; the
    protocol of each is an entry of a list."""
    protocols = record["protocol"].get("checkpoints") or []
    common = {key: value for key, value in record["protocol"].items() if key != "checkpoints"}
    shared = {key: value for key, value in record["provenance"].items() if key != "checkpoints"}
    for number, provenance in enumerate(checkpoints, 1):
        identity = _identity(provenance) if isinstance(provenance, dict) else None
        if identity is None:
            continue
        metrics = record["metrics"]
        if len(checkpoints) > 1:
            metrics = _below(metrics, f"{number}/")
        own = protocols[number - 1] if number <= len(protocols) else {}
        part = {"task": record["task"], "metrics": metrics, "protocol": {**common, **own}}
        yield Part({**part, "provenance": {**shared, **provenance}}, *identity)


def _parts_of_arms(record: dict[str, Any], arms: list[Any]) -> Iterator[Part]:
    """A study of detection has an arm or two; the names of the second's metrics begin with `other/`."""
    for number, arm in enumerate(arms):
        shared = {key: value for key, value in record["provenance"].items() if key != "arms"}
        provenance = {**shared, **arm, "backbone": arm.get("name")}
        if number == 0:
            provenance["backbone"] = record["provenance"].get("weights") or arm.get("name")
            others = ("other/", "compare/")
            metrics = {name: n for name, n in record["metrics"].items() if not name.startswith(others)}
        else:
            metrics = _below(record["metrics"], "other/")
        identity = _identity(provenance)
        if identity is not None:
            yield Part({**record, "metrics": metrics, "provenance": provenance}, *identity)


def _below(metrics: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The metrics whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def _identity(provenance: dict[str, Any]) -> tuple[str, str, str] | None:
    """(source, digest, reading) of the backbone of a provenance; None where it names none."""
    source = provenance.get("backbone")
    weights = provenance.get("weights_digest")
    if isinstance(weights, str):
        return str(source or weights[:12]), weights, _reading_digest(provenance)
    if source is not None:  # such as raw pixels, which have no weights
        return str(source), str(source), ""
    if "train_digest" in provenance:
        files = f"{provenance['train_digest']} {provenance.get('test_digest')}"
        return FEATURE_FILES, f"features:{hashlib.sha256(files.encode()).hexdigest()}", ""
    return None


_OF_TEST = ("test_branch", "test_weights_digest")
"""Of a second backbone of the checkpoint, which sees the test images."""


def _reading_digest(provenance: dict[str, Any]) -> str:
    """A digest of how weights were read, without how that is known."""
    reading = provenance.get("reading")
    facts = reading if isinstance(reading, dict) else {}
    read = {
        "branch": provenance.get("branch"),
        "architecture": provenance.get("architecture"),
        **{name: provenance[name] for name in _OF_TEST if name in provenance},
        **{name: fact.get("value") if isinstance(fact, dict) else fact for name, fact in facts.items()},
    }
    return hashlib.sha256(to_json(read).encode()).hexdigest()[:16]
