"""The lists of Pascal VOC's layout, ImageSets/…/SPLIT.txt, and the files of the names in them.

A list has the name of an image a line, without folder and ending. JPEGImages and Annotations hold a file of
that name each, whose ending may be of another kind of image, and in capitals.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from functools import cached_property
from pathlib import Path

from siamtransfer.data.listing import ENDINGS
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import marked_encoding, read_small_file
from siamtransfer.utils.text import printable

MOST_BYTES = 2**28
"""Of a list; ten million names have half of it."""
LONGEST_NAME = 240
"""Bytes; file systems take 255, with the ending."""
_OF_A_CLASS = re.compile(r"\S+\s+(-1|0|1)")


_SHOWN = 60  # characters of a name in a message


def _short(name: str) -> str:
    return printable(name[:_SHOWN])


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not blank, without the blanks around them; a mark of UTF-8 is left out.
    Bytes that are no UTF-8 become surrogates, as in the names of files.

    Raises:
        UserError: it cannot be read, or is no text, or is UTF-16.
    """
    where = printable(path)
    content = read_small_file(path, MOST_BYTES)
    if marked_encoding(content) not in (None, "utf-8-sig") or b"\0" in content:
        raise UserError(
            f"the list {where} is UTF-16, or no text: it holds bytes that no name has; save it as UTF-8"
        )
    text = content.decode("utf-8-sig", "surrogateescape")
    return [line.strip() for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def read_names(path: Path, lines: Sequence[str] | None = None) -> list[str]:
    """The names of a list, in its order; `lines` are its lines, where a caller has taken something from them.

    Raises:
        UserError: see `read_lines`; a name lies outside of the folder, or stands twice, or the list is that
            of one class.
    """
    where = printable(path)
    names = list(lines) if lines is not None else read_lines(path)
    if names and all(map(_OF_A_CLASS.fullmatch, names)) and not _is_annotated(path, names[0]):
        raise UserError(
            f"{where} is the list of one class: its lines end in 1, 0 or -1, {_short(names[0])!r} for one; "
            "name the list of all images, such as trainval"
        )
    for name in names:
        if name.startswith("/") or ".." in re.split(r"[/\\]", name):
            raise UserError(
                f"{where} lists {_short(name)!r}, which lies outside of the set; a line has the name of an "
                "image, without folder and ending"
            )
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise UserError(
                f"{where} lists a name of {len(name):,} characters, {_short(name)!r}, longer than any "
                "file's; a line has the name of an image, without folder and ending"
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(
            f"{where} lists {len(twice)} images more than once, {_short(twice[0])} for one; list each "
            "image once"
        )
    return names


def _is_annotated(path: Path, name: str) -> bool:
    """Whether there is an annotation of the name, blanks included, in the set that a list is in."""
    return any(os.path.lexists(above / "Annotations" / f"{name}.xml") for above in list(path.parents)[1:3])


class NamedFiles:
    """The files of a folder by the names in a list.

    `usual` is the ending that is looked for first, `endings` are all that there may be, in small letters; in
    the folder they may be in capitals.
    """

    def __init__(self, folder: Path, usual: str, endings: Set[str] = frozenset(ENDINGS)):
        self.folder, self.usual, self.endings = folder, usual, endings

    def relative(self, name: str) -> str:
        """The path below the folder; that with the usual ending where there is no file.

        Raises:
            UserError: the name has several files, and none with the usual ending.
        """
        usual = f"{name}.{self.usual}"
        if os.path.exists(self.folder / usual):  # noqa: PTH110 (a Path raises where a part is no folder)
            return usual
        found = self._others.get(name, [])
        if len(found) > 1:
            raise UserError(
                f"{printable(self.folder)} has {len(found)} files of {printable(name)}, "
                f"{' and '.join(printable(path) for path in found[:2])}; take the wrong one out"
            )
        return found[0] if found else usual

    def __getitem__(self, name: str) -> Path:
        """The file; raises UserError, see `relative`."""
        return self.folder / self.relative(name)

    @cached_property
    def _others(self) -> dict[str, list[str]]:
        """The paths of all files with one of the endings, by path without the ending."""
        paths = defaultdict(list)
        for above, _, files in os.walk(self.folder):
            inner = os.path.relpath(above, self.folder)
            for file in sorted(files):
                stem, _, ending = file.rpartition(".")
                if stem and ending.lower() in self.endings:
                    below = "" if inner == "." else f"{inner}/"
                    paths[f"{below}{stem}"].append(f"{below}{file}")
        return paths


def refuse_unreadable_name(name: str, path: Path, where: Path) -> None:
    """Raises UserError for a name from the list `where` that is no UTF-8 and of which there is no file."""
    if not name.isascii() and not os.path.lexists(path):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"the list {printable(where)} is no UTF-8: of its name {printable(name)!r} there is no file; "
                "save it as UTF-8"
            ) from None
