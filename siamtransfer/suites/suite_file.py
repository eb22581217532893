"""The file of a suite: which programs run on which images, with which options.

    options: {precision: float32}           options that all programs share which have them
    data: {name: fashion-scenes}            the images of a suite with one set …
    sets: {food101: {name: food101}}        … or of one with several: options of the section data, by name
    backbones: {moco: moco.pth}             backbones beside those of the command line
    tasks:
      linear:
        program: linear                     as on the command line; the task's own name where it is left out
        options: {protocol: logistic}       its options, as on the command line or in sections
        sets: [food101]                     the sets it runs on; all where it is left out
        after: to-d2                        a task whose output it reads
        skip_for: [pixels]                  sources (their beginnings) and labels that it does not take
        alone: true                         nothing runs beside it, and it has all GPUs
        writes: ["{folder}/to-d2.pkl"]      files that it writes beside its record

In an option, `{cell}` is the path of the cell's files without an ending, `{folder}` the folder of the
backbone, and `{checkpoint}` its source.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamtransfer.cli.yaml_file import read_yaml
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
"""Names of tasks and sets, which become names of files."""
_KEYS = ("options", "data", "sets", "backbones", "tasks")
_TASK_KEYS = ("program", "options", "sets", "after", "skip_for", "alone", "writes")


@dataclass(frozen=True)
class Task:
    """One program of a suite, with its options.

    Attributes:
        options: under dotted keys, placeholders unfilled.
        sets: names of the suite's sets; None for all of them.
        after: the task whose output it reads.
        skip_for: labels of backbones, or beginnings of their sources, that it does not take.
        alone: whether nothing runs beside it.
        writes: files that belong to it beside its record, placeholders unfilled.
    """

    name: str
    program: str
    options: dict[str, Any] = field(default_factory=dict)
    sets: tuple[str, ...] | None = None
    after: str | None = None
    skip_for: tuple[str, ...] = ()
    alone: bool = False
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """The content of a suite's file.

    Attributes:
        path: the file, for messages.
        options: of all programs that have them, under dotted keys.
        sets: by name, options of the section `data` under dotted keys (`data.name`); one without a name
            in a suite that does not name its sets.
        backbones: by label, a source or a mapping with the key `checkpoint`.
    """

    path: Path
    tasks: dict[str, Task]
    options: dict[str, Any] = field(default_factory=dict)
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    backbones: dict[str, Any] = field(default_factory=dict)

    @property
    def names_sets(self) -> bool:
        """Whether its sets have names."""
        return "" not in self.sets


def read_suite(path: Path) -> Suite:
    """Reads a suite's file strictly.

    Raises:
        UserError: the file cannot be read, or says something that no suite says; names file and key.
    """
    tree = read_yaml(path)
    _refuse_unknown(tree, _KEYS, str(path))
    tasks = _section(tree, "tasks", path)
    if not tasks:
        raise UserError(f"{path}: a suite needs tasks (tasks: {{knn: {{program: knn}}}})")
    if "data" in tree and "sets" in tree:
        raise UserError(f"{path}: data is the one set of a suite and sets are several: leave one out")
    named = _section(tree, "sets", path)
    for name in (*tasks, *named):
        if not NAME.fullmatch(str(name)):
            raise UserError(f"{path}: {name!r} is to be the name of a file: take letters, digits, _, + and -")
    sets = {name: _data_options(value, f"{path}: sets.{name}") for name, value in named.items()}
    if not named:
        sets = {"": _data_options(_section(tree, "data", path), f"{path}: data")}
    suite = Suite(
        path,
        {name: _read_task(name, value, path) for name, value in tasks.items()},
        flatten(_section(tree, "options", path)),
        sets,
        _section(tree, "backbones", path),
    )
    for task in suite.tasks.values():
        _check_references(task, suite)
    return suite


def _read_task(name: str, tree: Any, path: Path) -> Task:
    where = f"{path}: tasks.{name}"
    if tree is not None and not isinstance(tree, Mapping):
        raise UserError(f"{where} is {str(tree)[:40]!r}, but must be a section: {{program: knn}}")
    tree = dict(tree or {})
    _refuse_unknown(tree, _TASK_KEYS, where)
    program, alone, after = tree.get("program", name), tree.get("alone", False), tree.get("after")
    if not isinstance(program, str):
        raise UserError(f"{where}.program is {program!r}, but must be the name of a program")
    if not isinstance(alone, bool):
        raise UserError(f"{where}.alone is {alone!r}, but must be true or false")
    if after is not None and not isinstance(after, str):
        raise UserError(f"{where}.after is {after!r}, but must be the name of a task")
    options = tree.get("options") or {}
    if not isinstance(options, Mapping):
        raise UserError(f"{where}.options is {options!r}, but must be a section of options")
    return Task(
        name,
        program,
        flatten(dict(options)),
        None if tree.get("sets") is None else _names(tree["sets"], f"{where}.sets"),
        after,
        _names(tree.get("skip_for") or [], f"{where}.skip_for"),
        alone,
        _names(tree.get("writes") or [], f"{where}.writes"),
    )


def _check_references(task: Task, suite: Suite) -> None:
    """Raises UserError where a task names a set or a task that the suite does not have."""
    where = f"{suite.path}: tasks.{task.name}"
    if task.sets is not None:
        for name in task.sets:
            if name not in suite.sets or not name:
                raise UserError(f"{where}.sets: {_unknown('set', name, suite.sets)}")
    if task.after is None:
        return
    if task.after not in suite.tasks or task.after == task.name:
        others = [name for name in suite.tasks if name != task.name]
        raise UserError(f"{where}.after: {_unknown('task', task.after, others)}")
    if suite.tasks[task.after].after is not None:
        raise UserError(
            f"{where}.after: {task.after} itself runs after {suite.tasks[task.after].after}; chains of three "
            "are not supported"
        )


def _unknown(kind: str, name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, [each for each in known if each], n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    there = ", ".join(each for each in known if each) or "none"
    return f"there is no {kind} {name!r}{hint} (there are {there})"


def _refuse_unknown(tree: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in tree:
        if key not in known:
            raise UserError(f"{where}: {_unknown('key', str(key), known)}")


def _section(tree: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = tree.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{path}: {key} is {str(value)[:40]!r}, but must be a section ({key}: {{name: …}})")
    return dict(value or {})


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where} is {str(value)[:40]!r}, but must be a list of words: [one, two]")
    return tuple(value)


def _data_options(tree: Any, where: str) -> dict[str, Any]:
    """Options of the section `data`, under dotted keys."""
    if tree is not None and not isinstance(tree, Mapping):
        raise UserError(f"{where} is {str(tree)[:40]!r}, but must be a section: {{name: food101}}")
    return {f"data.{key}": value for key, value in flatten(dict(tree or {})).items()}
