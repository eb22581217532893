"""Why a line of a list names no file, as far as the line shows it: what the list really is, and the cure."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from siamtransfer.utils.regular_files import special_kind
from siamtransfer.utils.text import printable

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters, since one is a disk of Windows
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_QUOTES = "\"'`"


def hint_on(text: str, base: Path, exists: Callable[[str], bool]) -> str:
    """What a path that no file has shows of its list, in words that follow the path; empty where nothing.

    `text` is the path as the list has it, and `exists` says whether a file below `base` has a name.
    """
    if _ADDRESS.match(text):
        return "; it is an address, so download the images first and list their files"
    if _WINDOWS_PATH.match(text):
        return "; it is a path of Windows, so write the paths from the folder of the images on"
    if text.startswith(("{", "[")):
        return "; it is JSON, so write a CSV with the columns path and label, or a plain list"
    if (kind := _kind_of_path(base / text)) is not None:
        return f"; it is {kind} and no file, so list the image files themselves"
    if text.startswith("- ") and exists(text[2:]):
        return "; it is an entry of YAML, so leave the dashes out"
    words = re.split(r"\s+", text)
    if len(words) > 1 and exists(words[-1]):
        return "; its label stands before the path, so write the path first, or a table with commas"
    for delimiter, name in ((",", "commas"), (";", "semicolons"), ("|", "bars"), ("\t", "tabs")):
        cells = [cell.strip(" " + _QUOTES) for cell in text.split(delimiter)]
        if len(cells) > 1 and any(map(exists, cells)):
            return (
                f"; it is a row of a table with {name} among other lines, so divide path and label by a "
                "comma in each line, and close all quotes"
            )
    bare = text.strip(_QUOTES)
    if bare != text and (exists(bare) or exists(re.split(f"[{_QUOTES}]", bare)[0])):
        return "; it stands in quotes, so leave them out"
    if text.startswith("~"):
        return "; ~ is the home folder only for a shell, so write the path from --data.root on, or whole"
    if "\\" in text:
        return (
            "; its backslashes, as Windows writes them, are read as slashes, and there is no such file "
            "either: --data.root is the folder in which the paths begin"
        )
    return ""


def header_hint(line: int, text: str) -> str:
    """What to do where the only line that names no file is the first one, as a header is."""
    if line == 1 and not re.search(r"\.\w+$", text):
        return f"; if {printable(text)} is the header of a table, divide its columns and theirs by commas"
    return ""


def _kind_of_path(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return special_kind(mode)
