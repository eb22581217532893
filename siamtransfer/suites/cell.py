"""A cell of a suite: one backbone on one task and set; its command, its files, what decides its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamtransfer.suites.backbones import SuiteBackbone
from siamtransfer.suites.suite_file import Task
from siamtransfer.utils.text import first_few

NOT_OF_THE_NUMBER = frozenset(
    {"record", "cache", "device", "data.workers", "data.root", "data.download", "timeout_minutes", "resume",
     "checkpoint", "checkpoints", "trust_pickle", "track"}
)  # fmt: skip
"""Options that do not decide a number: the images and the weights are compared by their content."""

LABELS = "labels_needed"
"""Beside the options of a set: whether the program takes it without labels."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One measurement of a suite.

    Attributes:
        name: of its files, without the backbone: the task, after the set where sets have names.
        set: the set's name; empty where sets have none or the program takes no images of the suite.
        options: of the program under dotted keys, placeholders unfilled; they identify the measurement.
        command: the program's name and its words.
        parsed: its configuration, with other paths for its files, where nothing is; to be checked.
        keeps_record: whether the program writes the record itself.
        images: the options of the set of images, and LABELS; None where the program takes none.
        root: a folder of other images that has to be there, or None.
        after: the path of the cell that has to be done before, without an ending.
        group: cells of one backbone and group share features or files, and run one after the other.
    """

    backbone: SuiteBackbone
    task: Task
    name: str
    set: str
    base: Path
    options: dict[str, Any]
    command: tuple[str, ...]
    parsed: Any
    keeps_record: bool
    images: dict[str, Any] | None = None
    root: str | None = None
    after: Path | None = None
    group: str = ""

    @property
    def id(self) -> str:
        """BACKBONE/CELL."""
        return f"{self.backbone.label}/{self.name}"

    @property
    def record(self) -> Path:
        """Where its record is."""
        return self.base.with_name(f"{self.base.name}.json")

    @property
    def failure(self) -> Path:
        """Where it is kept that it failed."""
        return self.base.with_name(f"{self.base.name}.failed.json")

    @property
    def log(self) -> Path:
        """What the program said."""
        return self.base.with_name(f"{self.base.name}.log")

    @property
    def writes(self) -> list[Path]:
        """The files that belong to it beside its record."""
        return [Path(self.fill(pattern)) for pattern in self.task.writes]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its number, but for weights and images."""
        stated = {key: value for key, value in self.options.items() if key not in NOT_OF_THE_NUMBER}
        return {"program": self.task.program, **dict(sorted(stated.items()))}

    def fill(self, text: str) -> str:
        """`text` with its placeholders filled."""
        return fill(text, self.backbone, self.base)


def fill(value: Any, backbone: SuiteBackbone, base: Path) -> Any:
    """Texts, and those in lists, with {cell}, {folder} and {checkpoint} replaced."""
    if isinstance(value, list):
        return [fill(item, backbone, base) for item in value]
    if not isinstance(value, str):
        return value
    places = {"{cell}": str(base), "{folder}": str(base.parent), "{checkpoint}": backbone.source}
    for name, place in places.items():
        value = value.replace(name, place)
    return value


def name_cells(cells: Sequence[Cell]) -> str:
    """The names of cells in a sentence."""
    return first_few([cell.id for cell in cells])
