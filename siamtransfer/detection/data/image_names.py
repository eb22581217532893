"""The names of images in a file of annotations: which are taken, and where an absent one may be instead."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

_ODD = re.compile(
    "|".join(
        (
            r"(?P<scheme>^[A-Za-z][A-Za-z0-9+.-]*://)",
            r"(?P<absolute>^/|^[A-Za-z]:[\\/])",
            r"(?P<above>(?:^|[/\\])\.\.(?:[/\\]|$))",
            r"(?P<nul>\0)",
            r"(?P<half>[\ud800-\udfff])",
            r"(?P<empty>^\s*$)",
        )
    )
)
_MOST_FOLDERS = 30  # of a path in which a repeated one is looked for: the guesses are their square
_WHY = {
    "scheme": "which is an address; download the images and write their names below the folder of images",
    "absolute": "which begins at the root; write its name below the folder of images",
    "above": "which leads out of the folder of images; write its name below that folder",
    "nul": "which holds a byte of zero; write the name of its file",
    "half": "which holds half a character; write the name of its file",
    "empty": "which is empty; write the name of its file",
}


def why_odd(name: str) -> str | None:
    """Why a name is not one of a file below the folder of images, with the cure; None for one that may be."""
    found = _ODD.search(name)
    return _WHY[found.lastgroup or ""] if found else None


def elsewhere(path: str) -> str | None:
    """Where a file that is absent lies instead, as the end of a sentence; None where no guess is right."""
    parts = Path(path).parts
    repeated = (
        (
            parts[:start] + parts[start + length :],
            f"its folder stands twice in the path, {_joined(parts, start, length)}",
        )
        for length in range(1, len(parts) // 2 + 1 if len(parts) <= _MOST_FOLDERS else 1)
        for start in range(len(parts) - 2 * length + 1)
        if parts[start : start + length] == parts[start + length : start + 2 * length]
    )
    slashes = [(Path(path.replace("\\", "/")).parts, "the name has \\ where this machine has /")]
    ending = Path(path).suffix
    cases = [
        (Path(path).with_suffix(other).parts, f"its name ends in {other}")
        for other in (ending.lower(), ending.upper())
        if other != ending
    ]
    for guess, why in chain(slashes if "\\" in path else [], repeated, cases):
        if Path(*guess).is_file():
            return why
    return None


def _joined(parts: tuple[str, ...], start: int, length: int) -> str:
    return "/".join(parts[start : start + length])
