"""The images that a text file names, such as the 1 % and 10 % subsets of ImageNet."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import ENDINGS, MISSING, PathTable, list_folders, require_folder
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

MAX_CLASSES = 1_000_000  # a larger integer label is taken for a mistake
LINE = re.compile(rf"(?P<path>.*\.(?:{'|'.join(sorted(ENDINGS))}))(?:\s+(?P<label>.*))?", re.IGNORECASE)
IMAGENET_NAME = re.compile(r"(?P<wnid>n\d{8})_\w+\.\w+")


class ListedImages(FileImages):
    """The images that a text file names, in its order: on each line a path and, optionally, a label.

    Paths begin in `root` (by default the list's own folder) or at `/`; blank lines and lines that begin with
    `#` are skipped. Labels are integers, taken as they are, or names, numbered in sorted order.
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
        lines = _read_lines(list_path)
        base = list_path.parent if root is None else require_folder(root)
        paths = [_relative(path, base) for _, path, _ in lines]
        if len(set(paths)) < len(paths):
            path, times = Counter(paths).most_common(1)[0]
            raise UserError(
                f"{printable(list_path)} names {len(paths) - len(set(paths))} files more than once "
                f"({printable(path)} {times} times); leave each in once"
            )
        labels, classes = _read_labels(list_path, lines)
        names = [IMAGENET_NAME.fullmatch(PurePosixPath(path).name) for path in paths]
        wnids = [match["wnid"] for match in names if match]
        base, paths = _locate(base, paths, wnids if len(wnids) == len(paths) else None)
        if labels is None and len(wnids) == len(paths) and set(wnids) <= set(folders := list_folders(base)):
            classes = folders
            labels = np.searchsorted(np.array(folders), np.array(wnids)).astype(np.int64)
        files = _table(base, paths)
        missing = np.flatnonzero(files.sizes() == MISSING)
        if len(missing):
            raise UserError(
                f"{len(missing)} of the {len(files)} files in {printable(list_path)} are missing, the first "
                f"is {printable(files[int(missing[0])])}; --data.root is the folder in which the paths begin"
            )
        super().__init__(name, split, files, labels=labels, classes=classes)


def _read_lines(list_path: Path) -> list[tuple[int, str, str | None]]:
    """(number, path, label or None) of each line that is neither blank nor a comment."""
    try:
        text = list_path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise UserError(
            f"cannot read the list {printable(list_path)} ({error.strerror}); check --data.list_file"
        ) from error
    if b"\0" in text:
        raise UserError(
            f"{printable(list_path)} is not a text file; a list has the path of one image on each line"
        )
    lines = []
    for number, line in enumerate(os.fsdecode(text).split("\n"), start=1):
        line = line.strip()
        if line and not line.startswith("#"):
            match = LINE.fullmatch(line)
            lines.append((number, match["path"], match["label"]) if match else (number, line, None))
    if not lines:
        raise UserError(
            f"the list {printable(list_path)} is empty; it has the path of one image on each line"
        )
    return lines


def _relative(path: str, root: Path) -> str:
    """The path in its shortest form, from `root` on when it lies below."""
    pure = PurePosixPath(path)
    return str(pure.relative_to(root) if pure.is_relative_to(root) else pure)


def _read_labels(
    list_path: Path, lines: list[tuple[int, str, str | None]]
) -> tuple[np.ndarray | None, list[str]]:
    """int64[N] and the class names; (None, []) when no line has a label."""
    texts = [label for _, _, label in lines if label is not None]
    if not texts:
        return None, []
    if len(texts) < len(lines):
        number = next(number for number, _, label in lines if label is None)
        raise UserError(
            f"line {number} of {printable(list_path)} has no label although {len(texts)} other lines have "
            "one; give each line a label, or none"
        )
    if all(re.fullmatch(r"[0-9]+", label) for label in texts):
        numbers = [int(label) for label in texts]
        if max(numbers) >= MAX_CLASSES:
            raise UserError(
                f"{printable(list_path)} has the label {max(numbers)}; labels count the classes from 0"
            )
        return np.array(numbers, dtype=np.int64), [str(number) for number in range(max(numbers) + 1)]
    classes = sorted(set(texts))
    numbers_by_name = {name: number for number, name in enumerate(classes)}
    return np.array([numbers_by_name[label] for label in texts], dtype=np.int64), classes


def _locate(root: Path, paths: list[str], wnids: list[str] | None) -> tuple[Path, list[str]]:
    """The folder and the paths below it where the files are: as listed, or in ImageNet's class folders."""
    forms = [paths]
    if wnids and "/" not in "".join(paths):
        forms.append([f"{wnid}/{path}" for wnid, path in zip(wnids, paths, strict=True)])
    for form in forms:
        for base in (root, root / "train"):
            if (_table(base, form[:100]).sizes() != MISSING).any():
                return base, form
    return root, paths


def _table(base: Path, paths: list[str]) -> PathTable:
    return PathTable(base, [os.fsencode(path) for path in paths])
