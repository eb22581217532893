"""The cells of a suite: every backbone on every task and set, each as one command line, checked before any
of them runs."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from siamtransfer.cli.main import program
from siamtransfer.evaluation.config import EvaluationData
from siamtransfer.suites.backbones import SuiteBackbone
from siamtransfer.suites.cell import LABELS, Cell, fill
from siamtransfer.suites.config import SuiteConfig
from siamtransfer.suites.suite_file import Suite, Task
from siamtransfer.suites.words import Vocabulary
from siamtransfer.utils.errors import UserError

_ELSEWHERE = "checked"  # a folder that there is not


def build_plan(
    suite: Suite, backbones: Sequence[SuiteBackbone], config: SuiteConfig, out: Path
) -> list[Cell]:
    """All cells, backbone by backbone and set by set, so that those that share features follow each other.

    Every command line is parsed by its program.

    Raises:
        UserError: an option, a value, a program or a set is not known; names where it stands.
    """
    sets = _sets_with_roots(suite, config)
    builder = _Builder(suite, config, out, sets)
    _refuse_unused(suite, backbones, config, builder.vocabularies)
    groups: dict[tuple[str, str], list[Cell]] = {}
    for backbone in backbones:
        cells = [
            builder.cell(backbone, task, name)
            for name in (*sets, *([""] if suite.names_sets else []))
            for task in suite.tasks.values()
            if name in builder.sets_of(task) and not _is_skipped(task, backbone)
        ]
        names = [cell.name for cell in cells]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{suite.path}: two cells have the name {twice}: rename a task or a set")
        first = [cell for cell in cells if cell.after is None]
        group_of = {cell.base: (backbone.label, cell.set) for cell in first}
        for cell in first:
            groups.setdefault(group_of[cell.base], []).append(cell)
        for cell in cells:
            if cell.after is not None:
                groups[group_of[cell.after]].append(replace(cell, group=group_of[cell.after][1]))
    return [cell for group in groups.values() for cell in group]


def choose(cells: Sequence[Cell], only: Sequence[str], skip: Sequence[str]) -> list[Cell]:
    """The cells that --only and --skip leave, and those that these need.

    Raises:
        UserError: a word matches no cell, or nothing is left.
    """
    for flag, words in (("--only", only), ("--skip", skip)):
        for word in words:
            if not any(_matches(cell, word) for cell in cells):
                known = dict.fromkeys(cell.task.name for cell in cells)
                raise UserError(
                    f"{flag} {word} matches no task, set, backbone or cell; the tasks are {', '.join(known)}"
                )
    chosen = [cell for cell in cells if not only or any(_matches(cell, word) for word in only)]
    needed = {cell.after for cell in chosen}
    chosen = [cell for cell in cells if cell in chosen or cell.base in needed]
    left = [cell for cell in chosen if not any(_matches(cell, word) for word in skip)]
    if not left:
        raise UserError("--only and --skip leave nothing to measure")
    return left


def _matches(cell: Cell, word: str) -> bool:
    names = (cell.task.name, cell.set, cell.backbone.label, cell.name, cell.id)
    return any(fnmatch.fnmatchcase(name, word) for name in names if name)


def _is_skipped(task: Task, backbone: SuiteBackbone) -> bool:
    return any(backbone.label == word or backbone.source.startswith(word) for word in task.skip_for)


def _sets_with_roots(suite: Suite, config: SuiteConfig) -> dict[str, dict[str, Any]]:
    """The sets' options, with what the command line says of them."""
    roots, stated = config.roots_by_set(), {k: v for k, v in config.shared.items() if k.startswith("data.")}
    for name in roots:
        if name not in (*suite.sets, *suite.tasks):
            there = ", ".join(each for each in (*suite.sets, *suite.tasks) if each)
            raise UserError(f"--roots {name}=…: {suite.path} has no such set or task (there are {there})")
    sets: dict[str, dict[str, Any]] = {}
    if suite.names_sets:
        if "data.name" in stated:
            raise UserError(
                f"--data.name {stated['data.name']}: {suite.path} names its sets itself, and --only chooses"
            )
        for name, options in suite.sets.items():
            root = {"data.root": roots[name]} if name in roots else {}
            sets[name] = stated | options | root
        return sets
    if "data.name" in stated or "data.root" in stated:  # own images stand in place of the suite's
        return {"": {"data.name": "folder"} | stated}
    return {"": suite.sets[""] | stated}


def _refuse_unused(
    suite: Suite,
    backbones: Sequence[SuiteBackbone],
    config: SuiteConfig,
    vocabularies: Mapping[str, Vocabulary],
) -> None:
    """Raises UserError for an option that is meant for all programs and that none of them has."""
    origins = [(f"{suite.path}: options", suite.options)]
    origins += [
        (f"{suite.path}: sets.{name}" if name else f"{suite.path}: data", options)
        for name, options in suite.sets.items()
    ]
    origins += [(f"{suite.path}: backbones.{each.label}", each.options) for each in backbones]
    origins.append(("the command line", config.shared))
    for origin, options in origins:
        for key in options:
            if not any(vocabulary.known({key: None}) for vocabulary in vocabularies.values()):
                raise UserError(f"{origin}: no program of {suite.path} has an option {key}")


class _Builder:
    """Makes the cells of one suite."""

    def __init__(self, suite: Suite, config: SuiteConfig, out: Path, sets: dict[str, dict[str, Any]]):
        self.suite, self.config, self.out, self.sets = suite, config, out, sets
        self.roots = config.roots_by_set()
        self.commands = {task.program: _program(task, suite) for task in suite.tasks.values()}
        self.vocabularies = {name: Vocabulary(name, main) for name, main in self.commands.items()}

    def sets_of(self, task: Task) -> tuple[str, ...]:
        """The names of the sets that a task runs on; "" for none."""
        if "data.name" not in self.vocabularies[task.program].keys:
            if task.sets:
                raise UserError(
                    f"{self.suite.path}: tasks.{task.name}.sets: {task.program} has no option data.name, so "
                    "leave them out"
                )
            return ("",)
        if task.sets is None and "data.name" in task.options:
            return ("",)
        return tuple(self.sets) if task.sets is None else (task.sets or ("",))

    def cell(self, backbone: SuiteBackbone, task: Task, name: str) -> Cell:
        """One cell, its command line parsed."""
        vocabulary = self.vocabularies[task.program]
        title = f"{name}-{task.name}" if name else task.name
        base = self.out / backbone.label / title
        options = self._options(backbone, task, name, vocabulary)
        keeps_record = "record" in vocabulary.keys

        def words_at(place: Path) -> list[str]:
            filled = {key: fill(value, backbone, place) for key, value in options.items()}
            return vocabulary.words(filled | ({"record": f"{place}.json"} if keeps_record else {}))

        # Programs refuse to write what is there, of which the suite decides: options are checked elsewhere.
        parsed = self._parse(backbone, task, title, words_at(base.parent / _ELSEWHERE / title))
        data = getattr(parsed, "data", None)
        labelled = data if isinstance(data, EvaluationData) else None
        if labelled is not None and labelled.name is None:
            raise UserError(
                f"{self.suite.path} does not say on which images {task.name} runs: name them by --data.name, "
                "or give a folder by --data.root"
            )
        return Cell(
            backbone,
            task,
            title,
            name,
            base,
            options,
            (task.program, *words_at(base)),
            parsed,
            keeps_record,
            None if labelled is None else {**asdict(labelled), LABELS: getattr(parsed, LABELS, True)},
            None if labelled is not None else getattr(data or parsed, "root", None),
            self._cell_before(backbone, task, name),
            name,
        )

    def _options(
        self, backbone: SuiteBackbone, task: Task, name: str, vocabulary: Vocabulary
    ) -> dict[str, Any]:
        """The options of a cell; what is nearer to the cell, and then the command line, wins."""
        where = f"{self.suite.path}: tasks.{task.name}.options"
        own = {vocabulary.canonical(key, where): value for key, value in task.options.items()}
        common = {key: value for key, value in self.config.shared.items() if not key.startswith("data.")}
        source: dict[str, Any] = {} if vocabulary.source is None else {vocabulary.source: backbone.source}
        if vocabulary.source == "checkpoints":
            source = {vocabulary.source: [backbone.source]}
        if name in self.sets and "data.name" in vocabulary.keys and "data.name" not in own:
            images = self.sets[name]
        else:
            images = self._own_images(task, vocabulary)
        return (
            source
            | vocabulary.known(self.suite.options)
            | vocabulary.known(images)
            | (own | {key: value for key, value in images.items() if key in ("data.root", "root")})
            | (vocabulary.known(backbone.options) if vocabulary.source else {})
            | vocabulary.known(common)
        )

    def _own_images(self, task: Task, vocabulary: Vocabulary) -> dict[str, Any]:
        """What the command line says of the images of a task that takes none of the suite's sets."""
        root = self.roots.get(task.name)
        key = "data.root" if "data.root" in vocabulary.keys else "root"
        workers = {key: value for key, value in self.config.shared.items() if key == "data.workers"}
        return workers | ({} if root is None else {key: root})

    def _parse(self, backbone: SuiteBackbone, task: Task, title: str, words: list[str]) -> Any:
        command = self.commands[task.program]
        try:
            return command.parse(words)
        except UserError as error:
            raise UserError(
                f"{backbone.label}/{title} ({self.suite.path}: tasks.{task.name}): {error}"
            ) from error

    def _cell_before(self, backbone: SuiteBackbone, task: Task, name: str) -> Path | None:
        if task.after is None:
            return None
        before = self.suite.tasks[task.after]
        sets = self.sets_of(before)
        if _is_skipped(before, backbone) or not (name in sets or "" in sets):
            raise UserError(
                f"{self.suite.path}: tasks.{task.name}.after: {before.name} does not run for {backbone.label}"
                + (f" on {name}" if name else "")
            )
        place = name if name in sets else ""
        return self.out / backbone.label / (f"{place}-{before.name}" if place else before.name)


def _program(task: Task, suite: Suite) -> Any:
    where = f"{suite.path}: tasks.{task.name}.program"
    try:
        command = program(task.program)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    vocabulary = Vocabulary(task.program, command)
    if vocabulary.source is None and "weights" not in vocabulary.keys:
        raise UserError(f"{where}: {task.program} measures no checkpoint, so it is no task of a suite")
    return command


def check_cells(cells: Sequence[Cell], suite: Suite) -> None:
    """Lets every program check its options; those that read what another cell writes check them later.

    Raises:
        UserError: an option means nothing; names the cell.
    """
    for cell in cells:
        if cell.after is not None:
            continue
        check: Callable[[], None] = getattr(cell.parsed, "check", lambda: None)
        try:
            check()
        except UserError as error:
            raise UserError(f"{cell.id} ({suite.path}: tasks.{cell.task.name}): {error}") from error
