"""The Copydays set in the layout of DINO's code: originals, and folders of their copies.

A name has four digits of a group and two of a number: original/200000.jpg has the copies strong/200001.jpg,
strong/200002.jpg … and one in each of jpegqual/3 … jpegqual/75 and crops/10 … crops/80.

Legend: Q queries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import has_image_ending, is_hidden, require_folder
from siamtransfer.data.pixel_form import RGB, pixel_form
from siamtransfer.evaluation.copies.config import CopyData
from siamtransfer.evaluation.retrieval.sets import files
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

ORIGINAL, STRONG = "original", "strong"
FAMILIES = ("jpegqual", "crops")
PUBLISHED = {ORIGINAL: 157, STRONG: 229, **dict.fromkeys(FAMILIES, 157)}
"""Images in a folder, by the first part of its name (the counts in DINO's eval_copy_detection.py)."""
_NAME = re.compile(r"(?P<group>\d{4})\d{2}")


@dataclass
class CopySet:
    """Originals and copies.

    Attributes:
        queries: the copies of all subsets, one subset after the other.
        subsets: the rows of the queries that each subset has, by its name.
        answers: for each of Q queries int64[n], the originals that it is a copy of.
    """

    originals: FileImages
    queries: FileImages
    subsets: dict[str, range]
    answers: list[np.ndarray]
    remarks: list[str] = field(default_factory=list)


def open_copydays(data: CopyData) -> CopySet:
    """Opens the originals and the copies that the options name.

    Raises:
        UserError: a folder or an image is missing, a name is not as in the set, or a copy has no original.
    """
    assert data.root is not None
    root = require_folder(data.root)
    if not (root / ORIGINAL).is_dir():
        raise UserError(
            f"there is no folder {ORIGINAL} in {printable(root)}: put the originals of Copydays into it, and "
            f"the copies beside it into {STRONG}, jpegqual/QUALITY and crops/PERCENT"
        )
    originals = _names(root, ORIGINAL)
    groups = np.array([_group(root, ORIGINAL, name) for name in originals])
    subsets: dict[str, range] = {}
    queries: list[str] = []
    answers: list[np.ndarray] = []
    remarks = _remark(ORIGINAL, len(originals))
    for subset in _subsets(root, data.subsets):
        names = _names(root, subset)
        found = [np.flatnonzero(groups == _group(root, subset, name)) for name in names]
        lost = [name for name, rows in zip(names, found, strict=True) if not len(rows)]
        if lost:
            raise UserError(
                f"{len(lost)} copies in {printable(root / subset)} have no original of the same first four "
                f"digits in {ORIGINAL}: {first_few(lost)}"
            )
        subsets[subset] = range(len(queries), len(queries) + len(names))
        queries += [f"{subset}/{name}" for name in names]
        answers += found
        remarks += _remark(subset, len(names))
    form = pixel_form(
        orientation=data.orientation, background=data.background, max_pixels=data.max_pixels, usual=RGB
    )
    return CopySet(
        files("copydays", "originals", root, [f"{ORIGINAL}/{name}" for name in originals], form),
        files("copydays", "copies", root, queries, form),
        subsets,
        answers,
        remarks,
    )


def _subsets(root: Path, wanted: list[str]) -> list[str]:
    """The folders that these names stand for, each once."""
    found: list[str] = []
    for name in wanted:
        if name == "all":
            there = [family for family in (STRONG, *FAMILIES) if (root / family).is_dir()]
            found += _subsets(root, there)
        elif name in FAMILIES:
            family = root / name
            inner = [path.name for path in family.iterdir() if path.is_dir()] if family.is_dir() else []
            if not inner:
                raise UserError(f"there are no folders such as {name}/50 in {printable(root)}")
            numeric = sorted(
                inner, key=lambda folder: (not folder.isdecimal(), int(folder) if folder.isdecimal() else 0)
            )
            found += [f"{name}/{folder}" for folder in numeric]
        else:
            found.append(name.strip("/"))
    if not found:
        raise UserError(
            f"there are no copies in {printable(root)}: no folder {', '.join((STRONG, *FAMILIES))}"
        )
    return list(dict.fromkeys(found))


def _names(root: Path, folder: str) -> list[str]:
    """The images in a folder, sorted."""
    path = root / folder
    if not path.is_dir() or ".." in Path(folder).parts:
        known = ", ".join((STRONG, *FAMILIES, "all"))
        raise UserError(
            f"data.subsets: there is no folder {folder} in {printable(root)} ({known}, or a folder)"
        )
    names = sorted(
        entry.name for entry in path.iterdir() if has_image_ending(entry.name) and not is_hidden(entry.name)
    )
    if not names:
        raise UserError(f"there are no images in {printable(path)}")
    return names


def _group(root: Path, folder: str, name: str) -> str:
    """The group of an image: the first four digits of its name."""
    match = _NAME.fullmatch(name.rpartition(".")[0])
    if match is None:
        raise UserError(
            f"{printable(root / folder / name)} is not named as in Copydays, by four digits of its group and "
            "two of its number, such as 200001.jpg"
        )
    return match["group"]


def _remark(folder: str, images: int) -> list[str]:
    published = PUBLISHED.get(folder.partition("/")[0])
    return [] if published in (None, images) else [f"{folder} has {images} images instead of {published}"]
