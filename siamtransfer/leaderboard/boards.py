"""A board: backbones x columns, in which a number stands beside its like alone.

Records of one task whose protocols differ, or that were scored against other labels, stand in columns of
their own, and the remarks of the board say by which key they differ.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from siamtransfer.leaderboard.columns import (
    Column,
    comparable,
    numbers_of,
    sorting_key,
    tells_of_sets_beside,
    title_of,
)
from siamtransfer.leaderboard.measurement import BackboneId, Measurement
from siamtransfer.leaderboard.missing import Missing, command_for
from siamtransfer.leaderboard.settings import any_setting, settings_of
from siamtransfer.leaderboard.unlike import name_apart, sentences_on
from siamtransfer.records.likeness import protocol_key, truth_key
from siamtransfer.records.meanings import meaning_of
from siamtransfer.records.metric_intervals import interval_of
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

_SCORED = ("test", "images", "videos", "queries")  # whose fingerprint is that of the scored images
_ROUNDING = 1e-4  # of a value: what other arithmetic may change


@dataclass(frozen=True)
class Cell:
    """A number of a backbone, and the ends of its 95 % interval where the record has it."""

    measurement: Measurement
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class Board:
    """The numbers of backbones.

    Attributes:
        backbones: by their labels.
        columns: by task and set.
        cells: those that there are.
        remarks: sentences on what a reader of the board must know.
    """

    backbones: list[BackboneId]
    columns: list[Column]
    cells: dict[tuple[BackboneId, Column], Cell]
    remarks: list[str] = field(default_factory=list)

    def of(self, column: Column) -> dict[BackboneId, Cell]:
        """The cells of a column, in the order of the backbones."""
        pairs = ((backbone, self.cells.get((backbone, column))) for backbone in self.backbones)
        return {backbone: cell for backbone, cell in pairs if cell is not None}

    def missing(self) -> list[Missing]:
        """The cells that there are not, and the commands that fill them."""
        own = {backbone: cell.measurement for (backbone, _), cell in self.cells.items()}
        found = []
        for column in self.columns:
            like = [cell.measurement for cell in self.of(column).values()]
            for backbone in self.backbones:
                if (backbone, column) not in self.cells:
                    known = own.get(backbone)  # none of a backbone whose records have no number at all
                    command = "" if known is None else command_for(known, like)
                    found.append(Missing(backbone, column, command))
        return found


@dataclass(frozen=True)
class _Entry:
    """A number on its way to a cell."""

    measurement: Measurement
    metric: str
    truth: str | None
    images: str


def board(measurements: Sequence[Measurement], metrics: Literal["main", "all"] = "main") -> Board:
    """The board of measurements: of each its main number (see columns.py), or all numbers of which one way is
    better. Of a backbone that was measured twice in the same way, the newest record counts."""
    remarks: list[str] = []
    groups: dict[tuple[str, str, str], list[_Entry]] = defaultdict(list)
    for measurement in measurements:
        if metrics == "main" and tells_of_sets_beside(measurement.record):
            remarks += _on_absent_sets(measurement, measurements)
        of_record = protocol_key(measurement.record)
        for metric in numbers_of(measurement.record, metrics):
            part = comparable(measurement.record, metric)
            key = of_record if part is measurement.record else protocol_key(part)
            value = measurement.metrics[metric]
            if not isinstance(value, int | float) or not math.isfinite(value):
                remarks.append(f"{metric} in {printable(measurement.path)} is no number: left out")
                continue
            truth, images = _scored_against(measurement, metric, remarks)
            groups[measurement.task, metric, key].append(_Entry(measurement, metric, truth, images))
    columns: dict[Column, list[_Entry]] = {}
    for (task, metric, key), entries in groups.items():
        for truth, alike in _by_truth(entries, remarks).items():
            columns[_column(task, metric, f"{key}{truth}", alike)] = alike
    records = {column: entries[0].measurement for column, entries in columns.items()}
    titles = name_apart(records)
    named = {replace(column, title=titles[column]): entries for column, entries in columns.items()}
    cells: dict[tuple[BackboneId, Column], Cell] = {}
    for column, entries in named.items():
        by_backbone: dict[BackboneId, list[_Entry]] = defaultdict(list)
        for entry in entries:
            by_backbone[entry.measurement.backbone].append(entry)
        for backbone, of_one in by_backbone.items():
            cells[backbone, column] = _newest(of_one, column, remarks)
    remarks += sentences_on(records)
    backbones = {measurement.backbone for measurement in measurements}
    order = sorted(named, key=sorting_key)
    return Board(
        sorted(backbones, key=lambda backbone: backbone.label), order, cells, list(dict.fromkeys(remarks))
    )


def _on_absent_sets(measurement: Measurement, others: Sequence[Measurement]) -> list[str]:
    """A remark where the main numbers of a record are in those of its sets, and none of these is here."""
    path = measurement.path
    beside = (each.path for each in others if each.path.parent == path.parent)
    if any(each.name.startswith(f"{path.stem}.") and each != path for each in beside):
        return []
    return [
        f"{printable(path)} has no main number of its own: those of its sets are in the records beside it "
        f"({printable(path.stem)}.SET.json), of which none is here"
    ]


def _scored_against(measurement: Measurement, metric: str, remarks: list[str]) -> tuple[str | None, str]:
    """A digest of the labels or masks that a number was scored against, None where the record has no
    predictions or they cannot be read; and one of the images with them."""
    try:
        kept = measurement.kept()
    except UserError as error:
        remarks.append(f"{error}; its numbers are shown and not tested")
        kept = None
    provenance = measurement.record["provenance"]
    data = {
        key: value
        for key, value in sorted(provenance.items())
        if key.endswith("_fingerprint") and not key.startswith("train_")
    }
    if kept is None:
        return None, _digest([data or measurement.record["protocol"].get("test")])
    setting = (settings_of(kept, measurement.task, metric) or [any_setting(kept)])[0]
    truth = truth_key(kept, setting)
    return truth, _digest([truth, data if isinstance(kept, SampleValues) else None])


def _digest(facts: list[Any]) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _by_truth(entries: list[_Entry], remarks: list[str]) -> dict[str, list[_Entry]]:
    """The entries of one protocol by what they were scored against. Those without predictions join the others
    where these are of one kind."""
    found: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        found[entry.truth or ""].append(entry)
    unknown = found.pop("", [])
    if len(found) > 1:
        files = [printable(group[0].measurement.path) for group in found.values()]
        remarks.append(
            f"{entries[0].metric}: {first_few(files)} were scored against other labels, so they stand in "
            "columns of their own"
        )
    if unknown:
        found[next(iter(found)) if len(found) == 1 else ""] += unknown
    return found


def _column(task: str, metric: str, key: str, entries: Sequence[_Entry]) -> Column:
    first = next((entry for entry in entries if entry.truth is not None), entries[0])
    record = first.measurement.record
    meaning = meaning_of(metric)
    assert meaning is not None
    better, unit = meaning.better == "higher", meaning.unit
    title = title_of(record, metric)
    prints = (record["provenance"].get(f"{name}_fingerprint") for name in _SCORED)
    fingerprint = next((text for text in prints if isinstance(text, str)), "")
    return Column(
        task, metric, key, title, record["protocol"], better, unit, first.images, fingerprint=fingerprint
    )


def _newest(entries: list[_Entry], column: Column, remarks: list[str]) -> Cell:
    """The cell of one backbone; a remark where its records differ by more than rounding."""
    ordered = sorted(entries, key=lambda entry: entry.measurement.time)
    newest = ordered[-1].measurement
    value = float(newest.metrics[column.metric])
    for entry in ordered[:-1]:
        other = float(entry.measurement.metrics[column.metric])
        if abs(value - other) > _ROUNDING * max(abs(value), abs(other)):
            remarks.append(
                f"{newest.backbone.label} was measured twice for {column.title}: {value:.4g} in "
                f"{printable(newest.path)}, the newest, which counts, and {other:.4g} in "
                f"{printable(entry.measurement.path)}"
            )
    low, high = interval_of(column.metric, newest.metrics) or (None, None)
    return Cell(newest, value, low, high)
