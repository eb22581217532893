"""Where the class folders of a split are in a tree of folders, and what their layout gives away."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from siamtransfer.data.listing import (
    ARRAY_ENDINGS,
    ENDINGS,
    has_image_ending,
    is_hidden,
    list_folders,
    list_images,
)
from siamtransfer.data.parts import (
    Inside,
    Part,
    PartsOption,
    choose_part,
    find_parts,
    part_in,
    part_of,
    says_nothing,
    split_name,
)
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

LOOKED_INTO = 20  # class folders whose inner folders are looked at
MOST_PARTS = 3  # folders that may be parts with names of another language


@dataclass(frozen=True)
class SplitFolder:
    """Where a split is.

    Attributes:
        folder: holds a folder for each class.
        split: the name of the split there, which may be `val` where `test` was asked for.
        train: the folder of the train split, where that is another one; its classes give the labels.
        remarks: what a user should know of the way it was found.
        doubt: why its folders may be no classes, and what to say; None where they are.
    """

    folder: Path
    split: str
    train: Path | None = None
    remarks: list[str] = field(default_factory=list)
    doubt: str | None = None


def find_split(root: Path, split: str, parts: PartsOption) -> SplitFolder:
    """The folder of a split below `root`, or `root` itself as the split train.

    Raises:
        UserError: there is no such split, no class folders, or it is not clear which folders are parts.
    """
    folders = list_folders(root)
    found, others = _find(root, folders, parts)
    labelled = {part: _class_root(root, found[part], part) for part in _labelled(root, found)}
    train = root / labelled["train"] if "train" in labelled else None
    if parts == "auto" and split in folders and split != "train" and found and _holds_classes(root / split):
        own = next((labelled[part] for part in labelled if found[part] == split), split)
        return SplitFolder(root / own, split, train)  # by its own name, whatever it means
    part = choose_part(labelled, split)
    if part is not None:
        folder = root / labelled[part]
        remarks = [_beside(root, others)] if others else []
        if part == "train":
            remarks += [_unlabelled(root, name) for each, name in found.items() if each not in labelled]
        return SplitFolder(folder, split_name(found[part], part), train if folder != train else None, remarks)
    flat = choose_part(found, split)
    if flat is not None:
        if not _holds_image(root / found[flat], ENDINGS | ARRAY_ENDINGS):
            raise UserError(no_images(root / found[flat]))
        raise UserError(
            f"{printable(root / found[flat])} holds no class folders; sort its images into a folder for each "
            f"class, or, without labels, use --data.name flat --data.root {printable(root / found[flat])}"
        )
    if labelled:
        names = ", ".join(split_name(found[part], part) for part in labelled)
        cure = "; rename the one to learn from to train, or name one with --data.root" * (split == "train")
        raise UserError(f"{printable(root)} has no split {split}; its splits are {names}{cure}")
    if not folders:
        raise UserError(
            f"{printable(root)} holds no class folders; for images without labels use --data.name flat"
            if list_images(root).paths
            else no_images(root)
        )
    if split == "train":
        remark, doubtful = _remark_on_layout(root, folders) if parts == "auto" else (None, False)
        remarks = [remark] if remark else []
        return SplitFolder(root, split, remarks=remarks, doubt=remark if doubtful else None)
    above = "; give the folder above it" if part_of(root.name) else ""
    raise UserError(
        f"{printable(root)} has no split {split}, as it holds {printable(first_few(folders))} and no folders "
        f"named train and {split}{above}"
    )


def labelled_splits(root: Path) -> list[str]:
    """The names of the splits with class folders below `root`; none where its folders are classes.

    Raises:
        UserError: it is not clear which folders are parts.
    """
    found, _ = _find(root, list_folders(root), "auto") if root.is_dir() else ({}, [])
    return [split_name(found[part], part) for part in _labelled(root, found)]


def unlabelled_splits(root: Path) -> dict[str, Path]:
    """The folders below `root` that are parts of the set and hold images without class folders, by split."""
    found, _ = _find(root, list_folders(root), "auto") if root.is_dir() else ({}, [])
    return {
        split_name(name, part): root / name
        for part, name in found.items()
        if not list_folders(root / name) and _holds_image(root / name, ENDINGS)
    }


def filled_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder` that hold an image, sorted; arrays count where nothing else is."""
    names = list_folders(folder)
    for endings in (ENDINGS, ARRAY_ENDINGS):
        filled = [name for name in names if _holds_image(folder / name, endings)]
        if filled:
            return filled
    return []


def no_images(folder: Path, skipped: int | None = None, example: str = "") -> str:
    """The sentence that says that nothing below a folder is an image."""
    if skipped is None:
        listing = list_images(folder)
        skipped, example = listing.skipped, listing.skipped_example
    beside = f" ({skipped} other files, such as {example})" if skipped else ""
    return f"there are no images below {printable(folder)}{beside}; check the path"


def _find(root: Path, folders: list[str], parts: PartsOption) -> tuple[dict[Part, str], list[str]]:
    if parts == "none":
        return {}, []

    @cache
    def look(name: str) -> Inside:
        folder = root / name
        endings = ENDINGS | ARRAY_ENDINGS
        return Inside(
            any(True for _ in _images_in(folder, endings)),
            any(_holds_image(folder / inner, endings) for inner in list_folders(folder)),
        )

    return find_parts(folders, look, printable(root))


def _labelled(root: Path, found: dict[Part, str]) -> list[Part]:
    """The parts that have images in class folders."""
    return [part for part, name in found.items() if _holds_classes(root / name)]


def _holds_classes(folder: Path) -> bool:
    """Whether a folder in this one holds an image."""
    return any(_holds_image(folder / name, ENDINGS | ARRAY_ENDINGS) for name in list_folders(folder))


def _beside(root: Path, others: list[str]) -> str:
    return (
        f"{printable(root)} has parts, and {printable(first_few(others))} beside them holds images that "
        "belong to none and are not read"
    )


def _unlabelled(root: Path, name: str) -> str:
    if list_folders(root / name):
        return f"{printable(root / name)} holds no images in class folders, so nothing is measured on it"
    return (
        f"{printable(root / name)} names a part and holds no class folders, so it has no labels and nothing "
        "is measured on it"
    )


def _class_root(root: Path, name: str, part: Part) -> str:
    """The folder of a part that holds its classes: the part, or its only folder where that has the same
    meaning or none (`seg_train/seg_train/CLASS`, `train/images/CLASS`)."""
    inner = list_folders(root / name)
    same = len(inner) == 1 and (part_in(inner[0]) == part or says_nothing(inner[0]))
    return f"{name}/{inner[0]}" if same and _holds_classes(root / name / inner[0]) else name


def _remark_on_layout(root: Path, folders: list[str]) -> tuple[str | None, bool]:
    """What the folders inside class folders give away, and whether the latter may be no classes. A folder of
    photographs by year and month is such, and needs no classes where nothing is scored.

    Raises:
        UserError: the parts lie inside the classes, or the whole set inside its only folder.
    """
    inner = {name: list_folders(root / name) for name in folders[:LOOKED_INTO]}
    inner = {name: inside for name, inside in inner.items() if _holds_image(root / name, ENDINGS)}
    if len(inner) == 1 and len(folders) <= LOOKED_INTO:
        remark = _wrapped(root, next(iter(inner)))
        return remark, remark is not None
    parts = {name: {part for each in inside if (part := part_of(each))} for name, inside in inner.items()}
    if inner and all("train" in each and len(each) > 1 for each in parts.values()):
        name, inside = next(iter(inner.items()))
        raise UserError(
            f"the folders of {printable(root)} hold parts ({printable(name)} has "
            f"{printable(first_few(inside))}); put the parts above the classes (train/CLASS, test/CLASS), "
            "or say --data.parts none to take all images of a folder as one class"
        )
    return remark_on_same_folders(printable(root), inner, folders)


def remark_on_same_folders(
    where: str, inner: dict[str, list[str]], folders: list[str]
) -> tuple[str | None, bool]:
    """A remark where the `folders` of a set, of which some hold the folders `inner`, may be parts of it and
    those inside the classes; and whether the former may be no classes."""
    few = len(inner) <= MOST_PARTS
    common = _common_folders(list(inner.values()), few)
    if not common:
        return None, False
    same = (
        f"the folders of {where} ({printable(first_few(sorted(inner)))}) hold folders of the same "
        f"names ({printable(first_few(common))}); if those are the classes, rename the former to "
        "train and test, or name one of them with --data.root"
    )
    if few or all(map(says_nothing, folders)):
        return f"{same}; if the former are the classes, say --data.parts none", True
    return same, False


def _common_folders(inner: list[list[str]], few: bool) -> list[str]:
    """The names of the folders inside several folders, sorted, where they may be the classes of parts: one
    folder has all, or, of `few`, each shares half of its own with others."""
    largest = max(map(set, inner), key=len, default=set())
    if len(inner) < 2 or len(largest) < 2:
        return []
    if all(inside and largest.issuperset(inside) for inside in inner):
        return sorted(largest)
    times = Counter(name for inside in inner for name in inside)
    shared = {name for name in times if times[name] > 1}
    halves = all(inside and 2 * len(shared.intersection(inside)) >= len(inside) for inside in inner)
    return sorted(shared) if few and len(shared) > 1 and halves else []


def _wrapped(root: Path, name: str) -> str | None:
    """A remark where all images lie in one folder, which holds none itself, so that the folders inside may
    be the classes.

    Raises:
        UserError: they are parts.
    """
    folder = root / name
    while not any(_images_in(folder, ENDINGS)):
        inside = [each for each in list_folders(folder) if _holds_image(folder / each, ENDINGS)]
        found, _ = _find(folder, inside, "auto")
        if len(found) > 1 or any(_holds_classes(folder / each) for each in found.values()):
            raise UserError(
                f"{printable(root)} holds images in one folder, whose folders are parts "
                f"({printable(first_few(inside))}); give --data.root {printable(folder)}"
            )
        if len(inside) > 1:
            return (
                f"{printable(root)} holds images in one folder, {printable(name)}, which is taken for the "
                f"only class; if the classes are {printable(first_few(inside))}, give --data.root "
                f"{printable(folder)}, and if it is one class, say --data.parts none"
            )
        if not inside:
            break
        folder /= inside[0]
    return None


def _images_in(folder: Path, endings: Set[str]) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if has_image_ending(entry.name, endings) and not is_hidden(entry.name) and not entry.is_dir():
                    yield entry.name
    except OSError:  # listing the split names the folder
        return


def _holds_image(folder: Path, endings: Set[str], depth: int = 0) -> bool:
    """Whether an image is in a folder or below it; stops at the first."""
    if any(True for _ in _images_in(folder, endings)):
        return True
    return depth < 16 and any(
        _holds_image(folder / name, endings, depth + 1) for name in list_folders(folder)
    )
