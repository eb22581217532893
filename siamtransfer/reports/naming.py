"""Short names of columns for headings and sentences: `kNN`, `5-shot`, `Linear probe, cifar10`.

The full name of a number, with every setting, stands in its popover and among the protocols.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from siamtransfer.leaderboard import Column

WORDS = {
    "knn": "kNN",
    "linear": "Linear probe",
    "svm": "Linear SVMs",
    "semisup": "Fine-tuning",
    "segmentation": "Segmentation",
    "depth": "Depth",
    "retrieval": "Retrieval",
    "copies": "Copy detection",
    "video": "Video objects",
    "attention": "Attention",
    "detection": "Detection",
    "robustness": "Other images",
    "invariance": "Transformed images",
    "outside": "Unknown images",
}
"""What evaluators are called in a sentence."""

LEAVE_ONE_OUT = ", leave-one-out"
PART_OF_TRAIN = re.compile(r"(a fifth|[\d.]+ ?%) of train")
"""What a part of the train images is called that is scored for want of a test split."""
MOST_APART = 60  # characters that say how protocols differ; the protocols say it in full


class TaskName(NamedTuple):
    """How a column is called.

    Attributes:
        short: no two columns of a page have the same.
        detail: settings, the set where there are several, and what tells unlike protocols apart.
    """

    short: str
    detail: str


def task_names(columns: Sequence[Column]) -> dict[Column, TaskName]:
    """The names of the columns of a page. A set is named where there are several of them; columns that are
    still alike are numbered, and their details say how they differ."""
    sets = {column: _plain_set(column) for column in columns}
    several = len(set(sets.values())) > 1
    names = {}
    for column in columns:
        plain = _plain(column)
        at = sets[column]
        names[column] = f"{plain}, {at}" if several and at and at not in plain else plain
    count, seen = Counter(names.values()), Counter[str]()
    for column, name in names.items():
        if count[name] > 1:
            seen[name] += 1
            names[column] = f"{name} ({seen[name]})"
    return {column: TaskName(names[column], _detail(column, several)) for column in columns}


def only_set(columns: Sequence[Column]) -> str:
    """The set of all columns, without the split; empty where there are several."""
    sets = {_plain_set(column) for column in columns}
    return sets.pop() if len(sets) == 1 else ""


def _plain(column: Column) -> str:
    """The name without the set."""
    words = [word for word in column.metric.split("/") if word != column.task]
    make = _MAKERS.get(column.task)
    name = WORDS.get(column.task, column.task)
    return make(name, words) if make else name


def _fewshot(name: str, words: Sequence[str]) -> str:
    shots = next((word.removeprefix("k=") for word in words if word.startswith("k=")), "few")
    return f"{shots}-shot"


def _diagnose(name: str, words: Sequence[str]) -> str:
    return {"kmeans_accuracy": "k-means clusters", "rankme": "RankMe"}.get(
        words[0], words[0].replace("_", " ")
    )


def _first_word(name: str, words: Sequence[str]) -> str:
    """The evaluator, and the first word of the number: a probe, a set, a protocol."""
    return f"{name}: {words[0].replace('-', ' ')}" if len(words) > 1 else name


def _metric(name: str, words: Sequence[str]) -> str:
    return f"{name} {'/'.join(words)}"


_MAKERS: dict[str, Callable[[str, Sequence[str]], str]] = {
    "fewshot": _fewshot,
    "diagnose": _diagnose,
    "segmentation": _first_word,
    "depth": _first_word,
    "retrieval": _first_word,
    "copies": _first_word,
    "robustness": _first_word,
    "outside": _first_word,
    "detection": _metric,
}


def _set_of(column: Column) -> str:
    """The set in a title, without what tells unlike protocols apart."""
    return re.sub(r" \(.*\)$", "", column.title.partition(" · ")[2])


def _plain_set(column: Column) -> str:
    """`cifar10/test`, `cifar10/train, leave-one-out` and a fifth of the train images of cifar10 are cifar10:
    which of its images are scored is among the details."""
    name, train = _set_of(column).removesuffix(LEAVE_ONE_OUT), column.protocol.get("train")
    if PART_OF_TRAIN.fullmatch(name) and isinstance(train, str):
        name = train
    return re.sub(r"/(test|val|validation|train)$", "", name)


def _part_of(column: Column) -> str:
    """Which images of the only set are scored, where it is no split of its own."""
    name = _set_of(column)
    if name.endswith(LEAVE_ONE_OUT):
        return LEAVE_ONE_OUT.removeprefix(", ")
    return name if PART_OF_TRAIN.fullmatch(name) else ""


def _detail(column: Column, several: bool) -> str:
    settings = [word for word in column.metric.split("/") if word not in (column.task, "mean")]
    apart = column.title.partition(" · ")[2].removeprefix(_set_of(column)).strip()
    apart = apart if len(apart) <= MOST_APART else f"{apart[: MOST_APART - 2]}…)"
    return " · ".join(
        filter(None, (" ".join(settings), _set_of(column) if several else _part_of(column), apart))
    )
