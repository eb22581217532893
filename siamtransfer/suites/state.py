"""What suite.json holds: the plan of a suite, and how every cell that is done was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class SuiteState:
    """The content of suite.json.

    Attributes:
        backbones: label to source and stamp of the weights.
        cells: id of a done cell to its identity, the digests of its files, the seconds and the time.
        planned: id of every cell to its command.
        not_measured: id of a cell to why it cannot be measured here.
    """

    suite: str
    backbones: dict[str, dict[str, str]] = field(default_factory=dict)
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    planned: dict[str, list[str]] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)


def state_of(content: Any) -> SuiteState:
    """The state that the JSON of a suite.json describes.

    Raises:
        TypeError: it describes none.
    """
    if not isinstance(content, dict):
        raise TypeError("the file holds no object")
    state = SuiteState(**content)
    sections = state.backbones, state.cells, state.planned, state.not_measured
    if not isinstance(state.suite, str) or not all(isinstance(section, dict) for section in sections):
        raise TypeError("a section is of another kind")
    if not (
        all(_is_done_cell(entry) for entry in state.cells.values())
        and all(_are_texts(command) for command in state.planned.values())
        and all(isinstance(reason, str) for reason in state.not_measured.values())
        and all(_are_texts(backbone) for backbone in state.backbones.values())
    ):
        raise TypeError("an entry is of another kind")
    return state


def _is_done_cell(entry: Any) -> bool:
    """Whether this is what `SuiteFolder.finish` notes of a cell."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("identity"), dict)
        and isinstance(entry.get("weights"), str)
        and isinstance(entry.get("images", 0), dict | None)
        and isinstance(entry.get("files"), dict)
        and _are_texts(entry["files"])
    )


def _are_texts(values: Any) -> bool:
    """Whether all values of a list or an object are texts."""
    items = values.values() if isinstance(values, dict) else values if isinstance(values, list) else [None]
    return all(isinstance(value, str) and "\0" not in value for value in items)
