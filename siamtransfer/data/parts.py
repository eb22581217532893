"""Folders and files that are the parts of a set (train, val, test), as people name them.

`Train`, `training_set`, `valid`, `01_test`, `flowers-train` beside `flowers-test` are parts; `train` beside
`bus` and `car` is a class. Where names and contents allow both, the set is refused and `--data.parts none`
says that its folders are classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Literal

from siamtransfer.data.class_names import same_text
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

Part = Literal["train", "val", "test"]
PartsOption = Literal["auto", "none"]
"""Whether names such as train and test are looked for among folders, or all folders are classes."""

PART_NAMES = ("train", "val", "valid", "validation", "test")
"""Names of parts that a set keeps as the name of its split; any other becomes that of its part."""

TAKEN_FOR: dict[Part, tuple[Part, ...]] = {"train": ("train",), "val": ("val",), "test": ("test", "val")}
"""The parts that may be a split, in the order of preference. `test` may be `val`, because ImageNet's labelled
test images are there; `val` is never `test`, because nothing may be selected on test images."""

_WORDS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating"), "val"),
    **dict.fromkeys(("dev", "devel", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "tests", "holdout", "heldout"), "test"),
}
_FILLERS = {
    "set", "sets", "split", "part", "subset", "fold", "data", "dataset", "folder", "image", "images", "img",
    "imgs", "photo", "photos", "picture", "pictures", "pic", "pics", "sample", "samples", "file", "files",
    "the",
}  # fmt: skip
"""Words of names that say nothing about the images."""
_BESIDE = {
    "unlabeled", "unlabelled", "unsupervised", "extra", "masks", "annotations", "labels", "meta", "devkit",
}  # fmt: skip
"""Names of folders that lie beside parts and are no classes, whatever they hold."""
_GLUED = re.compile(rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))})({'|'.join(sorted(_FILLERS))})?")


@dataclass(frozen=True)
class Inside:
    """What a folder holds: images themselves, and folders with images."""

    images: bool
    folders: bool


def part_of(name: str) -> Part | None:
    """The part that a name means alone: `Train`, `01_train`, `valid_set`, `test images`; None where it means
    none, or something else too (`train_station`)."""
    part, rest = _read(name)
    return None if rest else part


def part_in(name: str) -> Part | None:
    """The one part that the words of a name hold, whatever else they say (`flowers-train-000000`)."""
    return _read(name)[0]


def says_nothing(name: str) -> bool:
    """Whether a name says nothing about the images: a number, or words such as set, fold and images."""
    return all(word.casefold() in _FILLERS for word in _words(name))


def part_word(name: str) -> str:
    """The word of a name that is its part, in lower case: `training` of `flowers_Training_2`."""
    words = (word.casefold() for word in _words(name))
    return next((match[1] for word in words if (match := _GLUED.fullmatch(word))), "")


def named_parts(names: Sequence[str], where: str) -> dict[Part, str]:
    """Which of the splits `names` that a set lists is which part.

    Raises:
        UserError: two of them mean one part.
    """
    return find_parts(names, lambda name: Inside(images=False, folders=True), where)[0]


def find_parts(
    names: Sequence[str], look: Callable[[str], Inside], where: str
) -> tuple[dict[Part, str], list[str]]:
    """Which of the folders `names` in `where` is which part, and the names of the others that hold images;
    no parts where the folders are classes.

    Raises:
        UserError: two folders mean one part, or the folders may be parts and classes.
    """
    read = {name: _read(name) for name in names}
    meant = [name for name, (part, rest) in read.items() if part and not rest]
    if not meant:
        meant = _same_but_for_the_part(read, where)
    if not meant:
        return {}, []
    others = [name for name in names if name not in meant and _plain(name) not in _BESIDE]
    others = [name for name in others if _holds_anything(look(name))]
    parts: dict[Part, list[str]] = {}
    for name in meant:
        part = read[name][0]
        assert part is not None
        parts.setdefault(part, []).append(name)
    if others and not _are_parts(parts, others, look, where):
        return {}, []
    found: dict[Part, str] = {}
    for part, candidates in parts.items():
        filled = (
            [name for name in candidates if _holds_anything(look(name))] if candidates[1:] else candidates
        )
        if len(filled) > 1:
            raise UserError(
                f"{printable(first_few(filled))} in {where} all mean the part {part}; rename all but one of "
                "them, or, if they are classes, say --data.parts none"
            )
        found[part] = (filled or candidates)[0]
    return {part: found[part] for part in TAKEN_FOR if part in found}, others


def choose_part(parts: Container[str], split: str) -> Part | None:
    """The part that is a split, such as `test` or `valid_set`; None where there is none."""
    meant = part_of(split)
    return next((part for part in (TAKEN_FOR[meant] if meant else ()) if part in parts), None)


def split_name(name: str, part: str) -> str:
    """What a set calls its split, whose folder or file has this name."""
    return name if name in PART_NAMES else part


def _are_parts(
    parts: dict[Part, list[str]], others: list[str], look: Callable[[str], Inside], where: str
) -> bool:
    """Whether folders are parts though there are others with images beside them.

    A class holds images, a part holds a folder for each class. One part alone among other folders is a class
    if it holds images as they do (train, bus, car); two parts are parts if they hold folders.
    """
    meant = [name for candidates in parts.values() for name in candidates]
    inside = [look(name) for name in meant]
    if len(parts) == 1 and not any(each.folders for each in inside):
        return False
    if len(parts) > 1 and any(each.folders and not each.images for each in inside):
        return True
    raise UserError(
        f"{where} holds {printable(first_few(meant))}, which may be parts of the set, and "
        f"{printable(first_few(others))}; if all are classes say --data.parts none, if the latter are parts "
        "call them train, val or test, otherwise move them out"
    )


def _same_but_for_the_part(read: dict[str, tuple[Part | None, tuple[str, ...]]], where: str) -> list[str]:
    """Names that differ in the part alone, such as flowers_train and flowers_test.

    Raises:
        UserError: there are several such groups, so the names give classes and parts at once.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, (part, rest) in read.items():
        if part:
            groups.setdefault(rest, []).append(name)
    several = [names for names in groups.values() if len({read[name][0] for name in names}) > 1]
    if len(several) > 1:
        raise UserError(
            f"the folders of {where} name a class and a part at once "
            f"({printable(first_few([name for names in several for name in names]))}); sort them into a "
            "folder for each part, with a folder for each class in it, "
            "or say --data.parts none if each is a class"
        )
    return several[0] if several else []


def _read(name: str) -> tuple[Part | None, tuple[str, ...]]:
    """The part that a name holds, None where it holds none or two, and its other words."""
    parts: set[Part] = set()
    rest = []
    for word in (word.casefold() for word in _words(name)):
        match = _GLUED.fullmatch(word)
        if match:
            parts.add(_WORDS[match[1]])
        elif word not in _FILLERS:
            rest.append(word)
    if {"hold", "held"} & set(rest) and "out" in rest:
        parts.add("test")
        rest = [word for word in rest if word not in ("hold", "held", "out")]
    return (parts.pop() if len(parts) == 1 else None), tuple(rest)


def _words(name: str) -> list[str]:
    """The words of a name, divided by what is no letter and before a capital letter."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[^\W\d_]+", same_text(name))


def _plain(name: str) -> str:
    return same_text(name).casefold()


def _holds_anything(inside: Inside) -> bool:
    return inside.images or inside.folders
