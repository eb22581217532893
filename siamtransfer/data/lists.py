"""The images that a text file names, such as the 1 % and 10 % subsets of ImageNet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from siamtransfer.data.class_names import similar_names
from siamtransfer.data.folders import FileImages
from siamtransfer.data.label_table import LabelTable, ListedFiles, shortest, table_of
from siamtransfer.data.list_text import read_entries
from siamtransfer.data.listing import MISSING, list_folders, require_folder
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

MAX_CLASSES = 1_000_000  # a larger integer label is taken for a mistake
_DIGITS = len(str(MAX_CLASSES))
_SHOWN = 20  # digits of a label in a message
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
IMAGENET_NAME = re.compile(r"(?P<wnid>n\d{8})_\w+\.\w+")


class ListedImages(FileImages):
    """The images that a text file names, in its order: on each line a path and, optionally, a label; or a
    table (CSV, TSV) with a column of paths and one of labels.

    Paths begin in `root` (by default the list's own folder) or at `/`; blank lines and lines that begin with
    `#` are skipped; `label_table.read_label_table` says what else is understood. Labels are integers, taken
    as they are, or names, numbered in sorted order; numbers with zeros before them (007) are names.
    ImageNet's subsets need no labels: the class of `n01440764_10026.JPEG` is the part before the underscore,
    the class folders may lie in `root/train` as well as in `root` and need not be in the list, and `classes`
    are all the folders there, so that the labels are those of the full set.

    Raises:
        UserError: the list or files of it are missing, it is empty or no text, names a file twice, or gives
            labels to a part of its lines only.
    """

    def __init__(
        self,
        list_file: str | Path,
        root: str | Path | None = None,
        *,
        name: str = "list",
        split: str = "train",
    ):
        list_path = Path(list_file).expanduser().absolute()
        base = list_path.parent if root is None else require_folder(root)
        entries, remarks = read_entries(list_path, ListedFiles(list_path, base).probe)
        paths = [shortest(entry.path, base) for entry in entries]
        names = [IMAGENET_NAME.fullmatch(PurePosixPath(path).name) for path in paths]
        wnids = [match["wnid"] for match in names if match]
        base, paths = _locate(base, paths, wnids if len(wnids) == len(paths) else None)
        entries = [replace(entry, path=path) for entry, path in zip(entries, paths, strict=True)]
        table = ListedFiles(list_path, base).table(entries, remarks)
        labels, classes, remarks = read_labels(list_path, table)
        if labels is None and len(wnids) == len(paths) and set(wnids) <= set(folders := list_folders(base)):
            classes = folders
            labels = np.searchsorted(np.array(folders), np.array(wnids)).astype(np.int64)
        super().__init__(name, split, table_of(base, table.paths), labels=labels, classes=classes)
        self.set_remarks = (*table.remarks, *remarks)


def read_labels(list_path: Path, table: LabelTable) -> tuple[np.ndarray | None, list[str], list[str]]:
    """int64[N], the class names, and remarks on them; (None, [], []) when no line has a label."""
    texts = table.labels
    if texts is None or not any(texts):
        return None, [], []
    if "" in texts:
        number, labelled = table.lines[texts.index("")], sum(map(bool, texts))
        raise UserError(
            f"line {number} of {printable(list_path)} has no label although {labelled} other lines have "
            "one; give each line a label, or none"
        )
    given = sorted(set(texts))
    if all(re.fullmatch(r"0|[1-9][0-9]*", label) for label in given):
        longest = max(given, key=lambda label: (len(label), label))  # int() refuses thousands of digits
        if len(longest) > _DIGITS or int(longest) >= MAX_CLASSES:
            label = longest if len(longest) <= _SHOWN else f"{longest[:_SHOWN]}… of {len(longest):,} digits"
            raise UserError(f"{printable(list_path)} has the label {label}; labels count the classes from 0")
        numbers = [int(label) for label in texts]
        classes = [str(number) for number in range(max(numbers) + 1)]
        without = [] if len(given) == len(classes) else sorted(set(classes).difference(given), key=int)
        return np.array(numbers, dtype=np.int64), classes, _remarks_on_gaps(list_path, without, classes)
    numbers_by_name = {name: number for number, name in enumerate(given)}
    labels = np.array([numbers_by_name[label] for label in texts], dtype=np.int64)
    return labels, given, [*similar_names(given), *_remarks_on_numbers(list_path, given)]


def _remarks_on_gaps(list_path: Path, without: Sequence[str], classes: Sequence[str]) -> list[str]:
    if not without:
        return []
    return [
        f"the labels of {printable(list_path)} are numbers, which count classes from 0, and {len(without)} "
        f"of these {len(classes)} classes have no image ({first_few(without)})"
    ]


def _remarks_on_numbers(list_path: Path, given: Sequence[str]) -> list[str]:
    """A remark where all labels are numbers and not all of them count classes."""
    odd = [label for label in given if not label.isdigit()]
    if not odd or not all(map(_NUMBER.fullmatch, given)):
        return []
    return [
        f"the labels of {printable(list_path)} are numbers that do not count classes ({first_few(odd)}) and "
        "are taken for the names of classes; write 0, 1, 2 … for classes, and leave a label out where there "
        "is none"
    ]


def _locate(root: Path, paths: list[str], wnids: list[str] | None) -> tuple[Path, list[str]]:
    """The folder and the paths below it where the files are: as listed, or in ImageNet's class folders."""
    forms = [paths]
    if wnids and "/" not in "".join(paths):
        forms.append([f"{wnid}/{path}" for wnid, path in zip(wnids, paths, strict=True)])
    for form in forms:
        for base in (root, root / "train"):
            if (table_of(base, form[:100]).sizes() != MISSING).any():
                return base, form
    return root, paths
