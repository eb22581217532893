"""Maps of images as a page holds them: pictures once for all maps that show the same, arrays as short texts.

Legend: N images of a map, K neighbours, Q samples of a record.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.image_map.image_map import ImageMap
from siamtransfer.reports.answers import Answers
from siamtransfer.reports.sources import Sources
from siamtransfer.utils.strict_json import to_json
from siamtransfer.utils.text import printable

BUDGET = 9_000_000
"""Bytes of all maps of a page together, as they stand in it."""
MOST_PREDICTIONS = 24
"""Records whose predictions are offered as colours of a map; of more a choice is no help."""
COSINE_STEPS = 10_000
"""A cosine is kept as so many steps, in 16 bits."""
UNKNOWN = -32768
"""Stands for a cosine that is not known."""
NO_CLASS = -1
"""Stands for an image that was not predicted, or has no label."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a record predicts of the images of a map.

    Attributes:
        name: the backbone and the column.
        backbone: its label.
        column: the short name of the column.
        predicted: int64[N].
        confidences: float32[N], of the predicted class; None where it was not kept.
    """

    name: str
    backbone: str
    column: str
    predicted: np.ndarray
    confidences: np.ndarray | None


@dataclass(frozen=True, eq=False)
class PictureGroup:
    """Images that one or several maps show, and what records predict of them.

    Attributes:
        first: a map of them, whose thumbnails, names and labels are those of all.
        predictions: of records on the same images, in the order of the board; a page has the first
            MOST_PREDICTIONS of them.
    """

    first: ImageMap
    predictions: Sequence[Predicted]


@dataclass(frozen=True, eq=False)
class ShownMap:
    """A map in the page: the name of its backbone, and the place of its group."""

    name: str
    map: ImageMap
    group: int


@dataclass(frozen=True, eq=False)
class MapContent:
    """All maps of a page.

    Attributes:
        groups, maps: as they are shown, maps in the order of the board.
        left_out: the names of those for which the page has no room.
    """

    groups: list[PictureGroup] = field(default_factory=list)
    maps: list[ShownMap] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """What the scripts of the map read."""
        return {
            "groups": [_group_json(group) for group in self.groups],
            "maps": [_map_json(shown) for shown in self.maps],
            "cosineSteps": COSINE_STEPS,
            "unknown": UNKNOWN,
        }


def map_content(sources: Sources, answers: Sequence[Answers], budget: int | None = None) -> MapContent:
    """The maps of a page, as many as fit into `budget` bytes (None: BUDGET); those of the backbones that
    stand first on the board come first. `answers` are what records predict."""
    content, groups, spent = MapContent(), {}, 0
    budget = BUDGET if budget is None else budget
    for name, image_map in _named(sources):
        key = _pictures_of(image_map)
        size = len(to_json(_map_json(ShownMap(name, image_map, 0))))
        group = PictureGroup(image_map, prediction_colours(image_map, answers))
        if key not in groups:
            size += len(to_json(_group_json(group)))
        if spent + size > budget:
            content.left_out.append(name)
            continue
        spent += size
        if key not in groups:
            groups[key] = len(content.groups)
            content.groups.append(group)
        content.maps.append(ShownMap(name, image_map, groups[key]))
    return content


def prediction_colours(image_map: ImageMap, answers: Sequence[Answers]) -> list[Predicted]:
    """What records predict of the images of a map: those whose scored set has the fingerprint of the map's
    or, where that is not known, as many images, and in both cases the labels of the map."""
    facts, indices = image_map.facts.get("set", {}), image_map.indices
    known = image_map.labels >= 0
    found = []
    for column in answers:
        if len(column.labels) != facts.get("images") or not known.any():
            continue
        if not np.array_equal(column.labels[indices][known], image_map.labels[known]):
            continue
        for answer in column.given:
            fingerprint = scored_fingerprint(answer.measurement.record)
            if fingerprint is not None and fingerprint != facts.get("fingerprint"):
                continue
            sure = None if answer.confidences is None else answer.confidences[indices]
            name = f"{answer.name}: {column.task}"
            found.append(Predicted(name, answer.name, column.task, answer.predicted[indices], sure))
    return found


def scored_fingerprint(record: dict[str, Any]) -> str | None:
    """The fingerprint of the images that a record scores: the test images, or train where each was scored
    against all others; None where the record has none."""
    provenance = record["provenance"]
    found = provenance.get("test_fingerprint") or provenance.get("train_fingerprint")
    return None if found is None else str(found)


def _named(sources: Sources) -> list[tuple[str, ImageMap]]:
    """The maps with names that no two share, in the order of the backbones of the board."""
    labels = {
        backbone.digest: (place, backbone.label) for place, backbone in enumerate(sources.board.backbones)
    }
    ordered = []
    for number, image_map in enumerate(sources.maps):
        facts = image_map.facts.get("backbone", {})
        source = str(facts.get("backbone") or f"map {number + 1}")
        digest = str(facts.get("weights_digest") or source)
        place, label = labels.get(digest, (len(labels), printable(Path(source).name)))
        ordered.append((place, number, label, image_map))
    ordered.sort(key=lambda entry: entry[:2])
    names: list[str] = []
    for _, _, label, image_map in ordered:
        images = image_map.facts.get("set", {})
        name = f"{label} on {images.get('name')}/{images.get('split')}"
        repeated = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({repeated + 1})" if repeated else name)
    return [(name, entry[3]) for name, entry in zip(names, ordered, strict=True)]


def _pictures_of(image_map: ImageMap) -> tuple[object, ...]:
    """Equal for maps that show the same pictures under the same names and labels."""
    return (image_map.thumbnails, image_map.names, image_map.class_names, image_map.labels.tobytes())


def _group_json(group: PictureGroup) -> dict[str, Any]:
    thumbnails, shown = group.first.thumbnails, group.predictions[:MOST_PREDICTIONS]
    return {
        "side": thumbnails.side,
        "columns": thumbnails.columns,
        "perSheet": thumbnails.per_sheet,
        "sheets": [
            f"data:image/webp;base64,{base64.b64encode(sheet).decode()}" for sheet in thumbnails.sheets
        ],
        "names": list(group.first.names),
        "classes": [printable(name) for name in group.first.class_names],
        "labels": _packed(group.first.labels, "<i2"),
        "predictions": [{"name": each.name, "predicted": _packed(each.predicted, "<i2")} for each in shown],
    }


def _map_json(shown: ShownMap) -> dict[str, Any]:
    image_map = shown.map
    return {
        "name": shown.name,
        "group": shown.group,
        "positions": _packed(np.rint(image_map.positions * 65535), "<u2"),
        "neighbours": _packed(image_map.neighbours, "<u2"),
        "neighbourCount": int(image_map.neighbours.shape[1]),
        "similarities": _packed(_in_steps(image_map.similarities), "<i2"),
        "typicality": _packed(_in_steps(image_map.typicality), "<i2"),
    }


def _in_steps(cosines: np.ndarray) -> np.ndarray:
    """Cosines as whole steps, UNKNOWN for NaN."""
    return np.where(np.isnan(cosines), UNKNOWN, np.rint(np.nan_to_num(cosines) * COSINE_STEPS))


def _packed(numbers: np.ndarray, kind: str) -> str:
    """Whole numbers as base64 of 16 bits each, little end first."""
    limits = np.iinfo(np.dtype(kind))
    if numbers.size and not (limits.min <= numbers.min() and numbers.max() <= limits.max):
        raise ValueError(f"numbers from {numbers.min()} to {numbers.max()} do not fit into {kind}")
    return base64.b64encode(np.ascontiguousarray(numbers).astype(kind).tobytes()).decode()
