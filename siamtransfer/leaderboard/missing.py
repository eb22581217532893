"""The command that would fill an empty cell: that of a record of the same column, for another backbone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any

from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.leaderboard.columns import Column
from siamtransfer.leaderboard.measurement import BackboneId, Measurement

PROGRAM = "siamtransfer"
_DOORS = {"__main__.py", PROGRAM, f"{PROGRAM}.exe"}
"""What the first word of a recorded command is where the second is the program."""
_OUTPUTS = ("record", "out", "run", "pictures", "neighbours", "spectrum")
"""Options that name what is written."""
_OF_READING = (*(field.name.replace("_", "-") for field in fields(ReadingOptions)), "branch")
"""Options that say how a file is read, and so go with the checkpoint."""
_SWITCHES = ("stride-in-1x1", "no-stride-in-1x1", "trust-pickle")
"""Those of them without a value; trusting a file goes with the file, too."""
_SECOND = "compare"
"""The option of detection that names a second backbone."""


@dataclass(frozen=True)
class Missing:
    """A cell that is empty.

    Attributes:
        backbone, column: whose, and which number.
        command: the command line that fills it; empty where no record of the column tells.
    """

    backbone: BackboneId
    column: Column
    command: str


def command_for(own: Measurement, like: Sequence[Measurement]) -> str:
    """The command line that measures the backbone of `own` as `like` were measured: the program, the set and
    the options are those of one of `like`, the file and how it is read those of `own`. Empty where none of
    `like` has a command of its program, or `own` has none that names its file.
    """
    reading = _reading_words(own)
    for measurement in like:
        words = program_words(measurement.record)
        if words is None or own.source == measurement.source or measurement.source not in words:
            continue
        if reading is None:
            continue
        changed = _for_backbone(words, measurement, own)
        return shlex.join([PROGRAM, *changed, *reading])
    return ""


def program_words(record: dict[str, Any]) -> list[str] | None:
    """The program and its words, as they were given; None where the record's command is another program's, as
    that of a notebook or a suite."""
    command = record["provenance"].get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        return None
    first, *words = command
    task = str(record["task"])
    if first in _DOORS and words and words[0] == task:
        return words
    if first.endswith(".py") and first.removesuffix(".py").replace("_", "-") == task:
        return [task, *words]
    return None


def _for_backbone(words: Sequence[str], like: Measurement, own: Measurement) -> list[str]:
    """The words for another checkpoint, without how `like`'s was read."""
    changed: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        flag = name.replace("_", "-") if word.startswith("--") else ""
        if flag in _SWITCHES or word in like.beside:
            continue
        if flag in _OF_READING or flag == _SECOND:
            if not equals and waiting:
                waiting.pop(0)
        elif flag in _OUTPUTS:
            value = value if equals else waiting.pop(0) if waiting else ""
            changed += [f"--{name}", _renamed(value, like.backbone.label, own.backbone.label)]
        elif word == like.source:
            changed.append(own.source)
        elif equals and value == like.source:
            changed.append(f"--{name}={own.source}")
        else:
            changed.append(word)
    return changed


def _reading_words(own: Measurement) -> list[str] | None:
    """The options that say how the file of `own` is read, from its own command; None where that is not known.
    A record that was made without a command line has the facts alone; then the branch is given."""
    words = program_words(own.record)
    if words is None:
        branch = own.record["provenance"].get("branch")
        return [] if branch is None else ["--branch", str(branch)]
    found: list[str] = []
    for place, word in enumerate(words):
        name, equals, _ = word.removeprefix("--").partition("=")
        flag = name.replace("_", "-") if word.startswith("--") else ""
        if flag in _SWITCHES or (flag in _OF_READING and equals):
            found.append(word)
        elif flag in _OF_READING and place + 1 < len(words):
            found += [word, words[place + 1]]
    return found


def _renamed(path: str, old: str, new: str) -> str:
    """The path of an output of another backbone: with its name where the path has the old one's in it,
    otherwise with it before the file's name."""
    pure = PurePath(path)
    if not pure.name:
        return path
    for before in (old, _file_name(old)):
        if before in pure.parts:
            return str(PurePath(*(_file_name(new) if part == before else part for part in pure.parts)))
        word = rf"(?<![^\W_]){re.escape(before)}(?![^\W_])"  # not a letter of another word
        if before and re.search(word, pure.name):
            return str(pure.with_name(re.sub(word, lambda _: _file_name(new), pure.name)))
    return str(pure.with_name(f"{_file_name(new)}-{pure.name}"))


def _file_name(label: str) -> str:
    """A label as it can be part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", label).strip("-")
