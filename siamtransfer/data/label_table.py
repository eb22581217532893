"""The files that a list or a table of labels names, found on disk."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from siamtransfer.data.list_hints import header_hint, hint_on
from siamtransfer.data.list_text import Entry, Probe, read_entries
from siamtransfer.data.listing import MISSING, PathTable, list_images, require_folder
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

LONGEST = 300  # characters of a path in a message: a line of another kind of file may be long
WINDOWS = "cp1252"  # what spreadsheets of western Europe write; its printable part is Latin-1

NO_LABEL = {"nan", "na", "n/a", "<na>", "null", "?", "-"}
"""What programs and people write in a table where nothing is known, in lower case."""


@dataclass(frozen=True)
class LabelTable:
    """The N images that a list names, in its order, with their labels.

    Attributes:
        base: the folder in which the paths begin.
        paths: N paths below it, or absolute ones, as the files are named on disk.
        labels: N texts, empty where an image has none; None where the list has no labels at all.
        lines: N numbers of lines in the list.
        remarks: how it was read, where that is not plain.
    """

    base: Path
    paths: list[str]
    labels: list[str] | None
    lines: list[int]
    remarks: list[str] = field(default_factory=list)


def read_label_table(list_file: str | Path, root: str | Path | None = None) -> LabelTable:
    """The images and labels that a text file names: a list of paths, a CSV, TSV or table with semicolons.

    Columns may stand in any order, with a header (path,label) or without. Paths begin in `root`, by default
    the list's own folder, or at `/`. A path may be without its ending or, where only one file below `root`
    has the name, without its folders; backslashes, upper and lower case and composed letters are matched
    where that is unambiguous. An empty cell is no label.

    Raises:
        UserError: the list cannot be understood, names a file that is not there or one twice; names the line.
    """
    list_path = Path(list_file).expanduser().absolute()
    base = list_path.parent if root is None else require_folder(root)
    files = ListedFiles(list_path, base)
    entries, remarks = read_entries(list_path, files.probe)
    return files.table(entries, remarks)


class ListedFiles:
    """The files below `base` that a list can mean."""

    def __init__(self, list_path: Path, base: Path):
        self.list_path, self.base = list_path, base
        self._ways: Counter[str] = Counter()  # how names that are not paths were understood

    @property
    def probe(self) -> Probe:
        """Whether a text names a file, for `read_entries`."""
        return Probe(lambda path: _exists(self.base, path), lambda path: self._search(path) is not None)

    def table(self, entries: list[Entry], remarks: list[str]) -> LabelTable:
        """The entries with the paths of their files on disk.

        Raises:
            UserError: a file is missing or named twice, a name means two files, or labels that are not UTF-8.
        """
        paths = [shortest(entry.path, self.base) for entry in entries]
        absent = np.flatnonzero(table_of(self.base, paths).sizes() == MISSING).tolist()
        missing = []
        for index in absent:
            found = self._search(paths[index], entries[index].line)
            if found is None:
                missing.append(index)
            else:
                paths[index] = found
        if missing:
            raise self._missing(entries, paths, missing)
        self._refuse_twice(entries, [self._plain_path(path) for path in paths])
        labels = self._labels(entries)
        ways = [f"{count} paths of {printable(self.list_path)} {way}" for way, count in self._ways.items()]
        remarks = [*remarks, *ways, *self._no_labels(labels or [])]
        return LabelTable(self.base, paths, labels, [entry.line for entry in entries], remarks)

    def _search(self, path: str, line: int | None = None) -> str | None:
        """The path of the one file that a text means; None where there is none.

        Raises:
            UserError: `line` is given, and the text means several files.
        """
        for way, read in _SPELLINGS.items():
            spelled = read(path)
            if spelled is not None and _exists(self.base, spelled):
                self._count(way, line)
                return shortest(spelled, self.base)
        for spelled in (read(path) for read in _SPELLINGS.values()):
            if not spelled or spelled.startswith("/"):
                continue
            for way, names in self._names.items():
                if way != _OTHER_LETTERS and way != _NO_ENDING and "/" in spelled:
                    continue
                found = names.get(_plain_name(spelled), [])
                if len(found) > 1 and line is not None:
                    raise UserError(
                        f"line {line} of {printable(self.list_path)} names {printable(path)}, which may be "
                        f"{printable(first_few(found))} below {printable(self.base)}; write the whole path"
                    )
                if len(found) == 1:
                    self._count(way, line)
                    return found[0]
        return None

    def _count(self, way: str, line: int | None) -> None:
        if way and line is not None:
            self._ways[way] += 1

    @cached_property
    def _names(self) -> dict[str, dict[str, list[str]]]:
        """For each way to name a file, the name to the paths of the files that have it."""
        names: dict[str, dict[str, list[str]]] = {way: {} for way in _NAMES}
        for encoded in list_images(self.base).paths:
            path = os.fsdecode(encoded)
            for way, name in _NAMES.items():
                names[way].setdefault(_plain_name(name(path)), []).append(path)
        return names

    def _labels(self, entries: list[Entry]) -> list[str] | None:
        if all(entry.label is None for entry in entries):
            return None
        as_windows = any(self._ways[way] for way in (_AS_WINDOWS, _AS_WINDOWS_WITH_SLASHES))
        labels = []
        for entry in entries:
            label = entry.label or ""
            if not _is_utf8(label):
                label = (as_windows and _from_windows(label)) or label
                if not _is_utf8(label) and _is_utf8(entry.path):  # else it may be a folder's own bytes
                    raise UserError(
                        f"the label in line {entry.line} of {printable(self.list_path)} is not UTF-8 "
                        f"({printable(label)}); save the list as UTF-8"
                    )
            labels.append(unicodedata.normalize("NFC", label))
        return labels

    def _no_labels(self, labels: list[str]) -> list[str]:
        """Remarks on labels that may mean that there is none."""
        times = Counter(label for label in labels if label.casefold() in NO_LABEL)
        return [
            f"{label} is a label in {printable(self.list_path)} ({count} times) and taken for the name of a "
            "class; where nothing is known, leave the label empty or the line out"
            for label, count in times.items()
        ]

    def _missing(self, entries: list[Entry], paths: list[str], missing: list[int]) -> UserError:
        first = missing[0]
        path = printable(table_of(self.base, [paths[first]])[0])
        path = path if len(path) <= LONGEST else f"{path[:LONGEST]}…"
        hint = hint_on(entries[first].path, self.base, lambda path: _exists(self.base, path))
        if not hint and len(missing) == 1 < len(entries):
            hint = header_hint(entries[first].line, entries[first].path)
        hint = hint or "; --data.root is the folder in which the paths begin"
        if not _is_utf8(paths[first]):
            hint += ", and the list is not UTF-8: save it as UTF-8"
        elif _exists(self.base.parent, paths[first]):
            hint += f", here {printable(self.base.parent)}"
        return UserError(
            f"{len(missing)} of the {len(entries)} files in {printable(self.list_path)} are missing, first "
            f"that of line {entries[first].line}, {path}{hint}"
        )

    def _plain_path(self, path: str) -> str:
        """The path without detours, for a comparison."""
        return shortest(os.path.realpath(self.base / path), self.base) if ".." in path else path

    def _refuse_twice(self, entries: list[Entry], paths: list[str]) -> None:
        if len(set(paths)) == len(paths):
            return
        path, times = Counter(paths).most_common(1)[0]
        same = [entry for entry, other in zip(entries, paths, strict=True) if other == path]
        lines = " and ".join(str(entry.line) for entry in same[:2])
        given = list(dict.fromkeys(entry.label or "" for entry in same))
        labels = f", with the labels {printable(first_few(given))}" if len(given) > 1 else ""
        raise UserError(
            f"{printable(self.list_path)} names {len(paths) - len(set(paths))} files more than once "
            f"({printable(path)} {times} times, in lines {lines}{labels}); leave each in once"
        )


_OTHER_LETTERS = "are files with other upper and lower case or other forms of letters"
_NO_ENDING = "have no ending, which the files have"
_NO_FOLDER = "are files in folders below"
_NO_FOLDER_OR_ENDING = "are files in folders below, without their endings"
_NAMES: dict[str, Callable[[str], str]] = {
    _OTHER_LETTERS: lambda path: path,
    _NO_ENDING: lambda path: str(PurePosixPath(path).with_suffix("")),
    _NO_FOLDER: lambda path: PurePosixPath(path).name,
    _NO_FOLDER_OR_ENDING: lambda path: PurePosixPath(path).stem,
}
"""Ways to name a file below a folder, as remarks say them."""


def _from_windows(text: str) -> str | None:
    """The text that surrogates of Windows's western encoding stand for; None where they stand for none."""
    try:
        return None if _is_utf8(text) else os.fsencode(text).decode(WINDOWS)
    except UnicodeDecodeError:
        return None


def _with_slashes(text: str) -> str | None:
    return text.replace("\\", "/") if "\\" in text else None


_AS_WINDOWS = "are not UTF-8 and name files that exist when they are read as Windows's western encoding"
_AS_WINDOWS_WITH_SLASHES = "are of Windows, with backslashes and its western encoding"
_SPELLINGS: dict[str, Callable[[str], str | None]] = {
    "": lambda text: text,
    "have backslashes, read as slashes": _with_slashes,
    _AS_WINDOWS: _from_windows,
    _AS_WINDOWS_WITH_SLASHES: lambda text: _with_slashes(_from_windows(text) or ""),
}
"""Ways to write a path, as remarks say them."""


def shortest(path: str, root: Path) -> str:
    """The path in its shortest form, from `root` on when it lies below."""
    pure = PurePosixPath(path)
    return str(pure.relative_to(root) if pure.is_relative_to(root) else pure)


def table_of(base: Path, paths: list[str]) -> PathTable:
    """The paths below `base`."""
    return PathTable(base, [os.fsencode(path) for path in paths])


def _exists(base: Path, path: str) -> bool:
    try:
        return bool(path) and (base / path).is_file()
    except (OSError, ValueError):
        return False


def _is_utf8(text: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _plain_name(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
