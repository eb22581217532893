"""Which numbers of a record stand on a board, and what a column is called.

A column is a number of a task under one protocol on one set. `main` numbers are what a task is reported by:
one a task as a rule, one for each probe or number of shots where a task has several.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from siamtransfer.records.meanings import meaning_of, split_statistic
from siamtransfer.utils.text import printable

MAIN_K = 20
"""Of several numbers of neighbours, the nearest to this is the main one."""
TASKS = (
    *("knn", "linear", "fewshot", "svm", "semisup", "robustness", "invariance", "outside", "segmentation"),
    *("depth", "retrieval", "copies", "video", "attention", "diagnose", "detection"),
)
"""The order of columns."""
MAIN: dict[str, tuple[str, ...]] = {
    "linear": (r"linear/{metric}", r"linear/last/{metric}"),
    "semisup": (r"semisup/{metric}", r"semisup/last/{metric}"),
    "fewshot": (r"fewshot/.+/top1/mean",),
    "svm": (r"svm/mAP", r"svm/low_shot/k=\d+/mean", r"svm/low_shot/k=\d+"),
    "segmentation": (r"(?!ceiling|mean/)[^/]+(/k=\d+)?/miou",),
    "depth": (r"(ridge|bins)/rmse",),
    "retrieval": (r"retrieval/(medium|hard)/mAP", r"retrieval/.+/mAP"),
    "copies": (r"copies/strong/mAP", r"copies/.+/mAP"),
    "video": (r"J-and-F/mean",),
    "attention": (r"jaccard/.*best-head-of-object", r"jaccard/.*best-head-of-set", r"jaccard/[^/]+"),
    "outside": (r"outside/[^/]+/knn/auroc",),
    "robustness": (r"robustness/.+",),
    "invariance": (r"invariance/mean/top1",),
    "diagnose": (r"kmeans_accuracy/backbone", r"kmeans_accuracy/.+", r"rankme/backbone", r"rankme/.+"),
}
"""Patterns of the main numbers by task: all that match the first pattern which matches any. `{metric}` is the
metric that the protocol names for the set, then top1, then mAP."""
_FIRST_ALONE = frozenset({"robustness"})
"""Tasks of which only the first of these is a main number."""
_SETS_BESIDE = frozenset({"robustness", "outside"})
"""Tasks that write a record for each set beside that of the test split, which has no main number: its head's
accuracy there is that of `linear` or `knn` once more, and the others are in the records of their sets."""
_CLEAN = "clean"
_OF_VIEWS = ("alignment/", "lidar/")
_OTHERS = (
    r".*/?(AP|mIoU|PQ)",
    r".*/?{metric}",
    r".*/?(miou|auroc|AUROC)",
    r".+",
)
"""The patterns of a task that MAIN does not name."""


@dataclass(frozen=True)
class Column:
    """A number of a task under one protocol on one set; equal columns may stand side by side.

    Attributes:
        task, metric: the evaluator and the name of its number.
        protocol_key: digest of the protocol and of what was scored against.
        title: what the number is and of which images; no two columns of a board have the same.
        protocol: the protocol of one of the records.
        higher_is_better: which way is better.
        unit: % or what is counted; empty for a plain number.
        images: digest of the scored images and their labels; columns of one set have the same.
        fingerprint: of the set of scored images, as records have it; empty where they have none.
    """

    task: str
    metric: str
    protocol_key: str
    title: str = field(compare=False)
    protocol: dict[str, Any] = field(compare=False, repr=False)
    higher_is_better: bool = field(compare=False)
    unit: str = field(compare=False)
    images: str = field(compare=False, default="")
    fingerprint: str = field(compare=False, default="")

    def __str__(self) -> str:
        return self.title


def numbers_of(record: dict[str, Any], which: Literal["main", "all"]) -> list[str]:
    """The names of a record's numbers that a board shows: those of which one way is better, without the ends
    of intervals, the other statistics of a number, single epochs, and baselines."""
    rankable = [name for name in record["metrics"] if _is_rankable(name)]
    return rankable if which == "all" else _main(record, rankable)


def tells_of_sets_beside(record: dict[str, Any]) -> bool:
    """Whether the main numbers of a record are those of the records that lie beside it, one for each set."""
    return record["task"] in _SETS_BESIDE and record["protocol"].get("measured_set", _CLEAN) == _CLEAN


def _is_rankable(name: str) -> bool:
    meaning = meaning_of(name)
    if meaning is None or meaning.better == "neither":
        return False
    if name.startswith("baseline/") or "/epoch=" in name or "best_on_test" in name:
        return False
    return split_statistic(name)[1] in (None, "mean")


def _main(record: dict[str, Any], names: Sequence[str]) -> list[str]:
    task, protocol = record["task"], record["protocol"]
    if tells_of_sets_beside(record):
        return []
    if task == "knn":
        return _main_of_knn(names, protocol)
    for metric in _metrics_in_order(protocol):
        for pattern in MAIN.get(task, _OTHERS):
            found = [name for name in names if re.fullmatch(pattern.replace("{metric}", metric), name)]
            if found and task == "fewshot":
                return _one_strength(found)
            if found:
                return found[:1] if task in _FIRST_ALONE or task not in MAIN else found
    return []


def _metrics_in_order(protocol: dict[str, Any]) -> list[str]:
    """The metric that the protocol names for the set, then those of sets without one."""
    return list(dict.fromkeys([str(protocol.get("metric", "top1")), "top1", "mAP", "mAP_11point"]))


def _main_of_knn(names: Sequence[str], protocol: dict[str, Any]) -> list[str]:
    """One number: of the k nearest to MAIN_K, and of several temperatures the first."""
    for metric in _metrics_in_order(protocol):
        found = [name for name in names if name.startswith("knn/") and name.rpartition("/")[2] == metric]
        if found:
            return [min(found, key=lambda name: abs(_neighbours(name) - MAIN_K))]
    return []


def _neighbours(name: str) -> int:
    found = re.search(r"/k=(\d+)/", name)
    return int(found[1]) if found else MAIN_K


def _one_strength(names: Sequence[str]) -> list[str]:
    """Of each number of shots the first strength."""
    by_shots: dict[str, str] = {}
    for name in names:
        by_shots.setdefault(re.sub(r"/C=[^/]+", "", name), name)
    return list(by_shots.values())


def comparable(record: dict[str, Any], metric: str) -> dict[str, Any]:
    """The record with the part of its protocol that the number `metric` depends on: of `diagnose` without
    what it counted of each network, without the recipe of views where no views are measured, and without the
    transformations where no transformed images are."""
    if record["task"] != "diagnose":
        return record
    left_out = {"measured"} if metric.startswith(_OF_VIEWS) else {"measured", "recipe"}
    left_out |= set() if metric.startswith("invariance/") else {"invariance"}
    protocol = {key: value for key, value in record["protocol"].items() if key not in left_out}
    return {**record, "protocol": protocol}


def sets_of_images(columns: Sequence[Column]) -> dict[Column, int]:
    """The number of the set of images that each column scores. Columns share one where their labels or the
    fingerprints of their images are equal, or where both share one with a third."""
    sets: dict[Column, int] = {}
    for number, column in enumerate(columns):
        same = {
            sets[other]
            for other in sets
            if other.images == column.images
            or (column.fingerprint and other.fingerprint == column.fingerprint)
        }
        sets = {other: number if known in same else known for other, known in sets.items()}
        sets[column] = number
    return sets


def sorting_key(column: Column) -> tuple[int, str, list[tuple[int, str]]]:
    """By the order of TASKS, then by title, in which numbers are sorted as numbers."""
    task = TASKS.index(column.task) if column.task in TASKS else len(TASKS)
    words = re.split(r"(\d+)", column.title)
    return task, column.task, [(int(word), "") if word.isdecimal() else (-1, word) for word in words]


def title_of(record: dict[str, Any], metric: str) -> str:
    """What a number is and of which images, such as `knn k=20 T=0.07 top1 · cifar10/test`."""
    task = str(record["task"])
    words = [word for word in metric.split("/") if word != task]
    if words and words[-1] == "mean" and len(words) > 1:
        words = words[:-1]
    images = set_of(record)
    return printable(" ".join([task, *words]) + (f" · {images}" if images else ""))


def set_of(record: dict[str, Any]) -> str:
    """The name of the scored set, as the protocol has it; empty where it has none or a path."""
    protocol = record["protocol"]
    if "train_digest" in record["provenance"]:
        return "feature files"
    if protocol.get("part") == "train" and isinstance(protocol.get("train"), str):
        return str(protocol["train"])  # diagnose measures a split, of two
    for key in ("test", "set", "images", "data"):
        if isinstance(protocol.get(key), str):
            name = str(protocol[key])
            return f"{protocol['train']}, leave-one-out" if name.startswith("leave-one-out") else name
    return ""
