"""The records of cells: a folder with a file SUITE.jsonl for each suite, a line a cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from siamtransfer.experiments.suites import Experiment, ExperimentSuite
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_text
from siamtransfer.utils.json_file import parse_json, read_json
from siamtransfer.utils.small_files import read_small_text
from siamtransfer.utils.strict_json import to_json


@dataclass(frozen=True)
class CellRecord:
    """What is kept of an experiment with one seed.

    Attributes:
        experiment: its id, SUITE/NAME.
        settings: the digest of its settings.
        options: words of pretrain/main.py beyond its settings.
        numbers: by name; accuracies in percent.
        alarms: how often the collapse alarm sounded.
        curves: points [step, value] of the journal's numbers, by name.
        seconds: of the whole cell.
    """

    experiment: str
    seed: int
    settings: str
    options: list[str]
    numbers: dict[str, float]
    alarms: int
    curves: dict[str, list[list[float]]]
    seconds: float
    versions: dict[str, str]
    commit: str | None

    def differences(self, other: CellRecord) -> list[str]:
        """In which numbers and curves two records of one cell differ, by name."""
        return sorted(
            {
                name
                for own, others in ((self.numbers, other.numbers), (self.curves, other.curves))
                for name in {*own, *others}
                if own.get(name) != others.get(name)
            }
        )


Key = tuple[str, int]
"""An experiment's id and a seed."""


class Records:
    """The records of a suite in a folder; `add` writes at once.

    Raises:
        UserError: its file is damaged.
    """

    def __init__(self, folder: Path, suite: ExperimentSuite):
        self.file = folder / f"{suite.name}.jsonl"
        self._order = {experiment.id: place for place, experiment in enumerate(suite.experiments)}
        self._of = self._read()

    def _read(self) -> dict[Key, CellRecord]:
        if not self.file.exists():
            return {}
        lines = read_small_text(self.file, 2**27).splitlines()
        found = [
            _record_of(parse_json(line, f"{self.file}, line {number}"), self.file)
            for number, line in enumerate(lines, 1)
        ]
        return {(record.experiment, record.seed): record for record in found}

    def get(self, experiment: Experiment, seed: int) -> CellRecord | None:
        """The record of a cell; None where there is none of the present settings."""
        record = self._of.get((experiment.id, seed))
        return None if record is None or record.settings != experiment.digest else record

    def all_of(self, experiment: Experiment) -> dict[int, CellRecord]:
        """The records of the present settings of an experiment, by seed."""
        seeds = sorted(seed for name, seed in self._of if name == experiment.id)
        found = {seed: self.get(experiment, seed) for seed in seeds}
        return {seed: record for seed, record in found.items() if record is not None}

    def add(self, records: Iterable[CellRecord]) -> None:
        """Keeps records, and writes the file, whose lines have the order of the suite. Records that another
        program has written in the meantime stay; those of what the suite no longer has go."""
        self._of = self._read() | {(record.experiment, record.seed): record for record in records}
        keys = sorted((key for key in self._of if key[0] in self._order), key=self._place)
        text = "".join(to_json(asdict(self._of[key])) + "\n" for key in keys)
        write_text(self.file, text)

    def _place(self, key: Key) -> tuple[int, int]:
        return self._order[key[0]], key[1]


def read_record(file: Path) -> CellRecord:
    """The record that a cell has left.

    Raises:
        UserError: it is damaged.
    """
    return _record_of(read_json(file), file)


def _record_of(content: Any, file: Path) -> CellRecord:
    try:
        return CellRecord(**content)
    except TypeError as error:
        raise UserError(f"{file} holds something else than records of experiments: {error}") from error
