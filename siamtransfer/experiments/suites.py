"""A suite of experiments as its folder of configs/experiments describes it.

configs/experiments/base.yaml             what all experiments share
configs/experiments/SUITE/suite.yaml      title, question, baseline and what is shown
configs/experiments/SUITE/budget.yaml     what all experiments of the suite share, if there is something
configs/experiments/SUITE/NAME.yaml       one experiment: what it changes, and in its header what it asks
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamtransfer.cli.yaml_file import read_yaml
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

SUITE_FILE = "suite.yaml"
BASE_FILE = "base.yaml"
BUDGET_FILE = "budget.yaml"
TEST = "knn/k=20/T=0.07/top1"
"""kNN accuracy on the test images, in percent."""
HELD_OUT = "held-out/top1"
"""The same on train images that no experiment trains on; settings are chosen by it."""
_KEYS = ("title", "question", "baseline", "order", "seeds", "number", "scores", "pictures")


@dataclass(frozen=True)
class Score:
    """A further measurement of every experiment of a suite, by programs of `siamtransfer`.

    Attributes:
        name: the heading of its column.
        commands: the words of each program, its name first; {run} is the folder of the run.
        metric: the number that counts, of the last program's record.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    metric: str


@dataclass(frozen=True)
class Picture:
    """Curves over the steps of training, a panel each.

    Attributes:
        file: name of the PNG.
        curves: names of journal rows, and the title of each panel.
        cells: the experiments that are drawn, and how the legend calls them.
    """

    file: str
    curves: Mapping[str, str]
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Experiment:
    """One recipe: what it asks, what was published where, and with which experiment it is compared.

    Attributes:
        files: the configurations that make its settings, in order: the base, the suite's budget, the recipe.
        settings: the same as one tree by dotted keys, and the suite's further measurements; what its numbers
            depend on, besides the seed.
    """

    suite: str
    name: str
    question: str
    published: str
    source: str
    against: str | None
    files: tuple[Path, ...]
    settings: Mapping[str, Any] = field(compare=False)

    @property
    def id(self) -> str:
        """SUITE/NAME."""
        return f"{self.suite}/{self.name}"

    @property
    def digest(self) -> str:
        """Of the settings; records with another one are of other settings."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ExperimentSuite:
    """The experiments of a folder, in the order of their table.

    Attributes:
        baseline: the experiment that others are compared with; None: those that name another.
        seeds: of each experiment.
        number: the one that is compared, TEST or HELD_OUT.
    """

    name: str
    title: str
    question: str
    baseline: str | None
    seeds: int
    experiments: tuple[Experiment, ...]
    number: str = TEST
    scores: tuple[Score, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def __getitem__(self, name: str) -> Experiment:
        return next(experiment for experiment in self.experiments if experiment.name == name)


def read_suites(folder: Path) -> dict[str, ExperimentSuite]:
    """All suites below a folder, by name."""
    return {file.parent.name: read_suite(file.parent) for file in sorted(folder.glob(f"*/{SUITE_FILE}"))}


def read_suite(folder: Path) -> ExperimentSuite:
    """The suite of a folder.

    Raises:
        UserError: a file, a key or a line of a header is missing, unknown or names what is not there.
    """
    file = folder / SUITE_FILE
    tree = read_yaml(file)
    for key in tree:
        if key not in _KEYS:
            raise UserError(f"{file} has the unknown key {key}; there are {', '.join(_KEYS)}")
    for key in ("title", "question"):
        if not isinstance(tree.get(key), str):
            raise UserError(f"{file} lacks a line `{key}: …`")
    names = sorted(
        {path.stem for path in folder.glob("*.yaml")} - {Path(SUITE_FILE).stem, Path(BUDGET_FILE).stem}
    )
    order = [str(name) for name in tree.get("order") or names]
    if sorted(order) != names:
        odd = sorted({*order, *names} - ({*order} & {*names})) or ["a name that stands twice"]
        raise UserError(f"the order of {file} and the recipes beside it differ in {', '.join(odd)}")
    scores = tuple(
        Score(each["name"], tuple(tuple(command.split()) for command in each["commands"]), each["metric"])
        for each in tree.get("scores") or ()
    )
    experiments = tuple(_read_experiment(folder / f"{name}.yaml", scores) for name in order)
    for against in (tree.get("baseline"), *(one.against for one in experiments)):
        if against is not None and against not in order:
            raise UserError(f"{file}: {against} is none of its experiments, so nothing is compared with it")
    return ExperimentSuite(
        name=folder.name,
        title=str(tree["title"]),
        question=str(tree["question"]),
        baseline=tree.get("baseline"),
        seeds=int(tree.get("seeds", 5)),
        experiments=experiments,
        number=tree.get("number", TEST),
        scores=scores,
        pictures=tuple(
            Picture(each["file"], each["curves"], each["cells"]) for each in tree.get("pictures") or ()
        ),
    )


def _read_experiment(file: Path, scores: Sequence[Score]) -> Experiment:
    """One recipe, over what it shares with others, with the suite's further measurements.

    Its header has the lines `# Question: …`, `# Published: …` and `# Source: …`; `# Against: …` names what it
    is compared with where that is not the suite's baseline, and `# Over: …` the configuration that it changes
    in the place of BASE_FILE.

    Raises:
        UserError: one is missing.
    """
    header = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    found = {word: rest.strip() for word, colon, rest in (line.partition(":") for line in header) if colon}
    base = file.parent / found["Over"] if "Over" in found else file.parent.parent / BASE_FILE
    shared = (base, file.parent / BUDGET_FILE)
    files = (*(path for path in shared if path.name != BUDGET_FILE or path.exists()), file)
    settings: dict[str, Any] = {}
    for path in files:
        settings |= flatten(read_yaml(path))
    settings |= {f"score/{score.name}": [score.metric, *map(list, score.commands)] for score in scores}
    try:
        return Experiment(
            suite=file.parent.name,
            name=file.stem,
            question=found["Question"],
            published=found["Published"],
            source=found["Source"],
            against=found.get("Against"),
            files=files,
            settings=settings,
        )
    except KeyError as error:
        raise UserError(f"{file} lacks a line `# {error.args[0]}: …` in its header") from error
